"""What was sent, from the stream to encrypted shards and their grid features."""

"""The process that computes, with the update that can be held at a stage."""

from workers import child

if __name__ == "__main__":
    child.main({"update": "tests.workers.held_update"}, warm=("tests.workers.held_update",))

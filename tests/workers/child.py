"""The process that computes, with the tests' kind of job and without torch, so that it starts soon."""

from workers import child

if __name__ == "__main__":
    child.main({"nap": "tests.workers.kinds"}, warm=())

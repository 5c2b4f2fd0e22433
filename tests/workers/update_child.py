"""The process that computes, with updates and forget jobs that can be held at a stage."""

from workers import child

KINDS = {"update": "tests.workers.held_update", "forget": "tests.workers.held_forget"}

if __name__ == "__main__":
    child.main(KINDS, warm=tuple(KINDS.values()))

"""What the kernel's files say of processes that it ended."""

from workers import oom


def test_it_reads_the_group_of_version_two(tmp_path):
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    (tmp_path / "member").write_text("0::/service\n")

    assert oom.kills(tmp_path, tmp_path / "member") == 2


def test_it_reads_the_group_of_version_one(tmp_path):
    group = tmp_path / "memory" / "docker"
    group.mkdir(parents=True)
    (group / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    (tmp_path / "member").write_text("3:cpu,cpuacct:/docker\n7:memory:/docker\n")

    assert oom.kills(tmp_path, tmp_path / "member") == 5


def test_it_counts_none_where_the_kernel_does_not_say(tmp_path):
    assert oom.kills(tmp_path, tmp_path / "nowhere") == 0

from tests.factories import a_job
from tests.workers.conftest import reaches


def test_a_worker_takes_a_job(service, tenant, worker):
    job = a_job(service, tenant)
    service.bell.ring(job.id, "cpu")
    done = reaches(service, job, "succeeded", "failed")
    assert done.state == "succeeded", done.error

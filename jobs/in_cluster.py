"""What a RayJob runs in its cluster: the command in an environment variable. Its exit code decides on a new cluster.

KubeRay answers a failed job by a new cluster, as often as `backoffLimit` says. That helps where infrastructure was
lost (5, a crash), and is needless where clips failed (1), a stop was asked for (3) or another run is at work (4):
these end with 0. Bad input (2) stays a failure: nothing was started, and a new cluster of a head alone is cheap.
"""

import json
import os
import sys

from jobs.cli import main
from pipeline.kuberay.objects import COMMAND_VARIABLE
from pipeline.summary import HELD, SOME_FAILED, STOPPED, SUCCESS

ENOUGH = (SUCCESS, SOME_FAILED, STOPPED, HELD)  # a new cluster would change nothing


def job_exit_code(code: int) -> int:
    return SUCCESS if code in ENOUGH else code


def run() -> int:
    code = main(json.loads(os.environ[COMMAND_VARIABLE]))
    if job_exit_code(code) != code:
        print(f"happyhorse ended with {code}; the job ends with 0, for a new cluster would change nothing", flush=True)
    return job_exit_code(code)


if __name__ == "__main__":
    sys.exit(run())

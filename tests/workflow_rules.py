"""What a workflow must satisfy, as functions from it to the list of what is wrong."""

import re

# When the weekly run opens an issue; a job that ran out of time counts as cancelled.
REPORTED = (
    "${{ !cancelled() && (contains(needs.*.result, 'failure') "
    "|| contains(needs.*.result, 'cancelled')) }}"
)


def steps(workflow):
    """Yield each step of each job with the job's name."""
    for job, content in workflow["jobs"].items():
        for step in content.get("steps", []):
            yield job, step


def unpinned(text):
    """List what is used without a full commit and, in a comment, the version that it is."""
    used = re.findall(r"^\s*(?:- )?uses: (.*)$", text, flags=re.M)
    pinned = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    return [line for line in used if not line.startswith("./") and not pinned.fullmatch(line)]


def unknown_targets(workflow, makefile):
    """List the targets that a workflow asks make for and the Makefile does not have."""
    targets = set(re.findall(r"^\.PHONY: (\S+)$", makefile, flags=re.M))
    asked = [
        target
        for _, step in steps(workflow)
        for words in re.findall(r"^\s*make +(.*)$", step.get("run", ""), flags=re.M)
        for target in re.findall(r"(?<!\S)[a-z]+(?!\S)", words)
    ]
    return [target for target in asked if target not in targets]


def unlimited(workflow):
    """List the jobs without a time limit of their own, but those that call another workflow."""
    jobs = workflow["jobs"].items()
    return [name for name, job in jobs if "uses" not in job and "timeout-minutes" not in job]


def too_much_allowed(workflow):
    """List what is allowed beyond reading, by job; the workflow itself may allow nothing."""
    if workflow.get("permissions") != {}:
        return ["everything"]
    return sorted(
        f"{name}: {what}"
        for name, job in workflow["jobs"].items()
        for what, how in job.get("permissions", {}).items()
        if how != "read"
    )


def unreported(workflow):
    """List the jobs whose failure opens no issue."""
    report = workflow["jobs"]["report"]
    if " ".join(report.get("if", "").split()) != REPORTED:
        return ["all of them"]
    jobs = workflow["jobs"].keys() - {"report"}
    return sorted(jobs - set(report["needs"]) | set(forgiven(workflow)))


def forgiven(workflow):
    """List the jobs whose failure, or that of a step, does not count."""
    jobs = {name for name, job in workflow["jobs"].items() if job.get("continue-on-error")}
    return sorted(jobs | {job for job, step in steps(workflow) if step.get("continue-on-error")})


def before(workflow, job):
    """Return the jobs that must have succeeded before one starts."""
    needs = workflow["jobs"][job].get("needs", [])
    needs = [needs] if isinstance(needs, str) else needs
    return set(needs).union(*(before(workflow, other) for other in needs))


def deployed_unchecked(workflow):
    """List the jobs that change something, where the address or a test may still be wrong."""
    checks = {
        job for job, step in steps(workflow) if step.get("run") == "python tools/address.py"
    } | {job for job, content in workflow["jobs"].items() if "test.yml" in content.get("uses", "")}
    # a condition of its own could let a job start after a failure, or let a check be left out
    sure = {name for name, job in workflow["jobs"].items() if "if" not in job}
    checks = (checks & sure) - set(forgiven(workflow))
    changing = {entry.split(":")[0] for entry in too_much_allowed(workflow)}
    return sorted(
        job for job in changing if job not in sure or len(checks & before(workflow, job)) < 2
    )

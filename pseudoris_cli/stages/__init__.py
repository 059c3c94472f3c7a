"""Policy of each stage: what it reads, which backends it asks, what it writes. No arithmetic, no files.

A stage is one file here and a row of `storage/stage_table.py`. It defines

* `NAME` and `REVISION`; the revision is raised by hand when a fix changes results,
* `version_content(settings)`: all that decides its results, beside its upstream (MissingDependency if a checkpoint is missing),
* `make_spec(settings, make_context)`: the picklable StageSpec that loads its worker; `make_context()` gives device, numerics
  and images, and is called only by stages that run networks,
* `check(settings, plan)`, if it is given data of the user's: lines on what of it does not fit the planned images, before any work,
* `check_upstream(settings, versions)`, if some of its settings fit certain versions of the stages before only: UsageError, before
  any work of its command,
* `is_wanted(settings)`, if its row says that it is optional.
"""

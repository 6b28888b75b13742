"""The loop: when things happen. What happens is the business of the `Driver`, which is a `Run`."""

from etude.train.driver import Driver, End, Group


def train(run: Driver[Group, End]) -> End:
    """Take steps until something ends the run; return what did.

    At one step the order is log, validate, save; a validation that improves saves. The end of a run validates and
    saves whatever was due.
    """
    when = run.moments
    end = run.begin()
    while end is None:
        for group in run.groups():
            before, now = run.step(group)
            logged = when.log.due(before, now) or now.epoch > before.epoch
            if logged:
                run.log()
            validated = when.validate.due(before, now)
            improved = validated and run.validate()
            end = run.ending()
            if end is not None:
                improved |= run.round_off(end, logged=logged, validated=validated)
            if improved or end is not None or when.save.due(before, now):
                run.save(best=improved, end=end)
            if end is not None:
                break
    return run.end(end)

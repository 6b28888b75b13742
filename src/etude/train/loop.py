"""The loop: when things happen. What happens is the business of `Training`."""

from etude.train.training import Training


def train(run: Training) -> str:
    """Take steps until something ends the run; return the reason.

    At one step the order is log, validate, save; a validation that improves saves. The end of a run validates and
    saves whatever was due.
    """
    when = run.moments
    reason = run.begin()
    while reason is None:
        for group in run.groups():
            before, now = run.step(group)
            logged = when.log.due(before, now) or now.epoch > before.epoch
            if logged:
                run.log()
            validated = when.validate.due(before, now)
            improved = validated and run.validate()
            reason = run.reason()
            if reason is not None:
                improved |= run.round_off(logged=logged, validated=validated)
            if improved or reason is not None or when.save.due(before, now):
                run.save(best=improved, reason=reason)
            if reason is not None:
                break
    return run.end(reason)

"""The shell: `etude VERB ...`; a verb's own imports happen when it runs, so that `etude --help` is instant."""

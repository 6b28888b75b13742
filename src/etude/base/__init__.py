"""What every other part stands on: errors, durations, schedules, config, randomness, files. No torch."""

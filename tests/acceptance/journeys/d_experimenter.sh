# An experimenter plans, trains, forks with another rate, and asks where the runs differ.
for a in one two three four; do for b in red old new big; do printf '%s %s\t%s %s\n' $a $b $b $a; done; done > train.tsv
etude plan pairs.toml --data.train train.tsv --data.val train.tsv --data.test none --output plan.svg
grep -q "epoch 1" plan.svg
etude train pairs.toml --data.train train.tsv --data.val train.tsv --data.test none --run.name base
etude fork runs/base --at "4 steps" --optimizer.learning_rate 1e-4
etude diff runs/base runs/base-fork-4 > diff.txt
grep "equal to step 4" diff.txt

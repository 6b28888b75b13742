# A careless user misspells, forgets and repeats: each time a sentence, and never a traceback or a lost file.
refused() { local code=0; "$@" > out.txt 2> said.txt || code=$?; test "$code" != 0; test -s said.txt; ! grep -q Traceback said.txt; }
printf 'a b\tb a\nc d\td c\n' > train.tsv
refused etude trian x.toml
grep "did you mean train" said.txt
refused etude train missing.toml
refused etude train pairs.toml --data.train nowhere.tsv
refused etude train pairs.toml --train.clip_gard 1.0
grep clip_grad said.txt
printf '[train]\npatience = off\n' > off.toml
refused etude train off.toml
grep "off is written false there" said.txt
refused etude predict runs/nothing
refused etude average runs/nothing
test ! -e runs/pairs

# A language modeller has a folder of notes, an empty one and a picture among them.
mkdir -p notes
for n in 1 2 3 4 5 6 7 8; do for _ in 1 2 3 4 5 6 7 8; do echo "Note $n: the hill is green and the dog ran over it."; done > notes/$n.txt; done
: > notes/empty.txt
printf '\x89PNG\r\n\x1a\n\0\0' > notes/picture.png
etude train text.toml --data.train notes --run.name notes
etude predict runs/notes --prompt "Note" --temperature 0.8 > out.txt
test -s out.txt
echo "the hill is green" | etude predict runs/notes --score > scores.txt
test "$(wc -l < scores.txt)" = 1
etude runs
etude train text.toml --data.train notes --run.name notes 2>&1 | grep "Nothing to do"

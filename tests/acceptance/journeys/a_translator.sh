# A translator has a spreadsheet of sentences, saved as CSV with quotes and a header of their own.
{
    echo 'source,target'
    for a in one two three four; do for b in red old new big; do echo "\"$a, $b\",\"$b, $a\""; done; done
} > sheet.csv
cp sheet.csv held.csv
etude train pairs.toml --data.train sheet.csv --data.val held.csv --data.test none --run.name mine
etude test runs/mine --data.test held.csv
echo "one, red" | etude predict runs/mine > answer.txt
test "$(wc -l < answer.txt)" = 1
etude predict runs/mine --output answers.txt <<< "two, old"
test -s answers.txt
etude average runs/mine --last 2
etude test runs/mine --data.test held.csv --checkpoint runs/mine/averages/*

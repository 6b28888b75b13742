# A researcher ports a script of torch: it trains, is interrupted by Ctrl-C, goes on, and loads the best weights.
cat > script.py <<'PY'
import signal, sys, torch, etude
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
class Press(etude.Callback):
    def on_step_end(self, run, outcome):
        if "press" in sys.argv and run.progress.step == 7: signal.raise_signal(signal.SIGINT)
torch.manual_seed(1)
inputs = torch.randn(64, 4)
data = TensorDataset(inputs, (inputs.sum(1) > 0).long())
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
result = etude.fit(model, DataLoader(data, 8, shuffle=True), DataLoader(data, 8), loss=nn.CrossEntropyLoss(),
                   max_duration="3 epochs", learning_rate=1e-2, run_dir=sys.argv[1], callbacks=[Press()])
result.load_best(model)
print([row["train/loss"] for row in result.history if "train/loss" in row], model[0].weight.sum().item())
PY
"$PYTHON" script.py whole > whole.txt
code=0; "$PYTHON" script.py cut press 2> said.txt || code=$?
test "$code" = 130
grep "saved at step 7 in cut" said.txt
grep "Training computes in" said.txt
"$PYTHON" script.py cut > cut.txt
cmp whole.txt cut.txt

//! The examples at the end of each help page.

pub const TOP: &str = "\
Examples:
  cryptomind demo                                    see it all in a minute
  cryptomind dev                                     a network of your own, with test money
  cryptomind task submit mlp.toml --watch            train a model
  cryptomind --role client                           the same commands at a prompt
  cryptomind --role miner --join cm://… --account cm1…
                                                     earn with this machine

Exit codes: 0 done, 1 internal or what was checked does not hold, 2 usage or configuration, 3 not found, 4 authentication, 5 funds,
6 no capacity, 7 the task failed, 8 the network failed the task (unearned tokens returned),
9 cancelled, 10 coordinator unreachable, 124 timeout, 130 interrupted.";

pub const DEMO: &str = "\
Starts a coordinator, a storage node and three miners as processes of their own, trains a
handwriting model on them for a client, kills a miner on the way, and settles to the last unit.

Examples:
  cryptomind demo
  cryptomind demo --calm --dir /tmp/demo
  cryptomind demo --format json | tail -n 1";

pub const DEV: &str = "\
Examples:
  cryptomind dev
  cryptomind dev --listen 0.0.0.0:7700               let other machines join
  cryptomind dev --dir ~/devnet                      keep it, and go on with it next time";

pub const REGISTER: &str = "\
Examples:
  cryptomind register ada";

pub const KEY: &str = "\
Examples:
  cryptomind key new                                 make the client's key
  cryptomind key new /safe/place/ada.key
  cryptomind key show
  cryptomind key rotate                              a new key for the same account
  cryptomind key ls";

pub const KEY_ROTATE: &str = "\
Writes a new key beside the old one, has the account's next transactions signed by it, and only then puts
it in the old one's place, which stays beside it as FILE.retired. The account's id, its money and its
name stay. Interrupted, it goes on when it is called again. Nodes that work for the account under a word
of the old key have to be approved again.

Examples:
  cryptomind key rotate
  cryptomind key rotate --key ada.key --coordinator cm://…";

pub const WALLET: &str = "\
Examples:
  cryptomind wallet balance
  cryptomind wallet faucet
  cryptomind wallet send bob 0.25
  cryptomind wallet history --limit 10 --format json
  cryptomind wallet receipt cmr1… -o payment.receipt";

pub const WALLET_HISTORY: &str = "\
Examples:
  cryptomind wallet history --limit 10
  cryptomind wallet history --before cmr1…           the page after the one that ended there";

pub const WALLET_SEND: &str = "\
Says amount, fee and both together before anything is signed. In scripts nothing is asked.

Examples:
  cryptomind wallet send bob 0.25
  cryptomind wallet send cm1… 0.25 --yes --format json";

pub const WALLET_RECEIPT: &str = "\
Examples:
  cryptomind wallet receipt cmr1… -o payment.receipt
  cryptomind ledger verify-receipt payment.receipt --genesis cmg1…";

pub const LEDGER: &str = "\
Examples:
  cryptomind ledger status
  cryptomind ledger block 0
  cryptomind ledger tx cmr1…
  cryptomind ledger follow cm://… --dir copy         trust nobody: check what the coordinator does
  cryptomind ledger verify --dir copy
  cryptomind ledger export --as csv -o transfers.csv
  cryptomind ledger verify-receipt payment.receipt --genesis cmg1…";

pub const LEDGER_VERIFY: &str = "\
Exit code 1 where anything does not hold, with the first block where it does not. The coordinator must
not be running on the folder; while it runs, use `cryptomind ledger follow`.

Examples:
  cryptomind ledger verify
  cryptomind ledger verify --dir /var/lib/cryptomind/coordinator --format json";

pub const LEDGER_VERIFY_RECEIPT: &str = "\
Exit code 1 where the file proves nothing, with the reason. `cryptomind network status` prints the
network's id; take it from where you would take a bank's address, not from whoever sent the file.

Examples:
  cryptomind ledger verify-receipt payment.receipt --genesis cmg1…";

pub const LEDGER_EXPORT: &str = "\
Amounts are in base units (10^9 are 1 CTM) and once more in CTM; times in milliseconds since 1970 and
once more in UTC.

Examples:
  cryptomind ledger export --as csv -o transfers.csv
  cryptomind ledger export --dir copy | jq 'select(.reason == \"work\")'";

pub const LEDGER_FOLLOW: &str = "\
Any key may follow: without a key file a fresh one is used. Exit code 1 where the coordinator's history
is not that of the folder, or a block does not hold, with {\"diverges_at\": HEIGHT, \"reason\": …}.

Examples:
  cryptomind ledger follow cm://… --dir copy         until Ctrl-C
  cryptomind ledger follow cm://… --dir copy --once
  cryptomind ledger follow cm://… --dir copy --until-height 1000 --format json";

pub const DATASET: &str = "\
Examples:
  cryptomind dataset ls
  cryptomind dataset add digits/ --name digits --access paid --fee 0.02
  cryptomind dataset add iris.csv --label species
  cryptomind dataset get ada/digits -o digits";

pub const DATASET_ADD: &str = "\
Examples:
  cryptomind dataset add digits/ --name digits --access paid --fee 0.02
  cryptomind dataset add iris.csv --label species
  cryptomind dataset add private.csv --label outcome --access owner
  cryptomind dataset add --csv houses.csv --values price,area
  cryptomind dataset add --text shakespeare.txt --context 64
  cryptomind dataset add --text program.bin --context 128 --level byte --held-out 0.05
  cryptomind dataset add --safetensors tensors/ --name embedded

Tensors of safetensors files are taken as they are: `inputs` [samples, …] of F32 or U8, and either `labels` [samples] of
I64, I32, U32 or U8, or `targets` [samples, values] of F32.";

pub const MODEL: &str = "\
Examples:
  cryptomind model ls
  cryptomind model get bob/digits-mlp -o model
  cryptomind model infer bob/digits-mlp --dataset ada/digits --split test
  cryptomind model serve bob/digits-mlp < rows.csv";

pub const MODEL_INFER: &str = "\
Examples:
  cryptomind model infer bob/digits-mlp --dataset ada/digits
  cryptomind model infer bob/digits-mlp --dataset bob/mine --split train --max-cost 0.5 -o answers
  cryptomind model infer bob/digits-mlp --input rows.csv --format json";

pub const MODEL_SERVE: &str = "\
A line an answer: class, probability, and where the time went. The first answer counts what it took until
a miner had the model. What is held beyond the answers comes back at the end of input, or with Ctrl-C.
Values are those of the dataset: a table's columns in their order without that of the labels, grey values of images.
The weights know how the network takes them; what another tool trained without saying so takes them as they are.

Examples:
  cryptomind model serve bob/digits-mlp < rows.csv
  cryptomind model serve bob/digits-mlp --samples 100000 --max-cost 0.5 --input rows.csv
  my-sensor | cryptomind model serve bob/digits-mlp --format json | my-program";

pub const BENCH_INFER: &str = "\
Starts a whole network on this machine, publishes a small model, and calls it on a miner that does not have
it. The baseline is the same forward pass in this process.

Examples:
  cryptomind bench infer --format json
  cryptomind bench infer --calls 20000";

pub const TASK: &str = "\
Examples:
  cryptomind task new ada/digits -o mlp.toml         a task file to start from
  cryptomind task quote mlp.toml
  cryptomind task submit mlp.toml --watch
  cryptomind task ls --state running
  cryptomind task watch cmt1abcd
  cryptomind task get cmt1abcd -o model
  cryptomind task rate cmt1abcd 5";

pub const TASK_SUBMIT: &str = "\
A task file:
  kind = \"train\"
  name = \"digits-mlp\"
  dataset = \"ada/digits\"
  [model]
  input = [8, 8]
  layers = [\"linear 64\", \"relu\", \"linear 10\"]
  [train]
  epochs = 30
  [group]
  miners = 3
  [budget]
  max_cost = \"1 CTM\"
Other layers are written likewise: \"conv2d 32 kernel=3 padding=1\", \"max_pool 2\", \"batch_norm\", \"embedding 65 128 positions\",
\"attention 4\", { residual = [\"relu\"] }, { repeat = 4, layers = [\"relu\"] }; or preset = \"mlp\", \"cnn\" or \"gpt\" with outputs = 10.
loss = \"mean_square\" is for numbers. README.md has them all; config/tasks has samples.

Examples:
  cryptomind task submit mlp.toml
  cryptomind task submit mlp.toml --watch --format json";

pub const TASK_WATCH: &str = "\
--timeline draws the first rank's last step, anew with each progress event: a bar from when to when it computed,
each bundle of gradients was on its way around the ring, its sums were applied, and the members confirmed the
step to each other:
  compute  ██████████████████                        at     0.009 for    12.560 ms
  ring 1                  ▒▒▒▒▒▒▒                    at    10.816 for     5.010 ms
  apply 1                            ▓               at    18.485 for     0.637 ms
  ring 2                     ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒         at    12.567 for    10.588 ms
  apply 2                                       ▓▓   at    26.496 for     1.018 ms
  confirm                                         ░░ at    27.516 for     1.526 ms
Where a step has more bundles than 15, the last bar is that of all others. In JSON the spans, in
microseconds, are the newest progress event's `timeline`.

Examples:
  cryptomind task watch cmt1abcd
  cryptomind task watch cmt1abcd --timeline
  cryptomind task watch cmt1abcd --format json | jq -c '.event.progress.timeline // empty'";

pub const MINER: &str = "\
Examples:
  cryptomind miner ls
  cryptomind miner links cmn1abcd --format json      how far is it from the others?
  cryptomind miner approve                           who asks to work for you?
  cryptomind miner approve cmn1abcd --days 30
  cryptomind miner why-no-work
  cryptomind miner selftest                          is this machine fit, and how fast?
  cryptomind miner explain cmn1abcd                  what does its rating rest on?
  cryptomind miner delegations
  cryptomind miner revoke cmn1abcd                   it was stolen, or sold";

pub const MINER_SELFTEST: &str = "\
Products of three sizes are checked by Freivalds' method, three small models have to learn a rule that the challenge
draws, and the losses have to be what other machines reach; the coordinator knocks at the miner's port. A bad check says
what to do; exit code 2 then. The miner that is named, or was joined by hand on this machine, joins with the report. Stop
other work on this machine first, and the miner.

Examples:
  cryptomind miner selftest
  cryptomind miner selftest --seconds 10 --format json
  cryptomind miner selftest --miner /etc/cryptomind/miner.toml";

pub const MINER_EXPLAIN: &str = "\
  C = Beta(4 + right, 1 + 8 x wrong)             correctness; half is forgotten in 60 days
  D = Beta(4 + done, 1 + failed + left / 4)      delivery; half is forgotten in 14 days
  V = median of achieved / promised speed        of the last 15 runs, 1.1 at most
  U = users' stars, weighed by what was paid and by how far each rater is believed
  rating = 5 x C^2 x D x V x (0.85 + 0.15 x U / 5)
Shown is the rating with the means of C and D; where miners are chosen and earnings are withheld, the one with their
5 % quantiles counts. Both are the lower one of the node's and its owner's. The events are the coordinator's; the
numbers are computed from them on this machine, and compared.

Examples:
  cryptomind miner explain cmn1abcd
  cryptomind miner explain cmn1abcd --format json";

pub const MARKET: &str = "\
Examples:
  cryptomind market price
  cryptomind market price --history                  draw the last day
  cryptomind market simulate config/scenarios/three-lans.toml
  cryptomind market honesty                          does cheating pay?";

pub const MARKET_PRICE: &str = "\
A class is what is done and the memory that it takes: training-1g, training-8g, training-24g, training-80g,
inference-1g and so on. Its price moves once a minute, by 2 % at most: up while more than 70 % of the miners'
speed is asked for by funded tasks, down below 45 %. A task keeps the price that it was posted at.

Examples:
  cryptomind market price --class inference-8g
  cryptomind market price --class training-8g --history
  cryptomind market price --history hours --format json";

pub const MARKET_RUNS: &str = "\
One row a miner and run: floating-point operations that it computed (verified work alone), the time that it took
without waiting for others, how long it was a member. Time that nobody accounts for counts as everybody's.

Examples:
  cryptomind market runs
  cryptomind market runs --node cmn1… --format json
  cryptomind market runs -o runs.csv";

pub const NETWORK: &str = "\
Examples:
  cryptomind network status --format json";

pub const BENCH_RING: &str = "\
`bus_gib_s` is what nccl-tests call bus bandwidth: S/t · 2(N-1)/N for a buffer of S bytes of f32, whatever it travels in.
`raw_gib_s` is what the same QUIC streams move both ways at once where nobody looks at the bytes, in turn with the sums;
`of_raw` is what sums move over that (int8 among more than two has more links than the one that raw bytes take). `wire_bytes_ratio` is all UDP payload that a rank sent over the least that it must.

Examples:
  cryptomind bench ring --format json
  cryptomind bench ring --world 4 --mib 64 --wire int8 --profile lan
  cryptomind bench ring --world 4 --mib 0.0009765625 --rounds 200
  sudo cryptomind bench ring --netns 1gbit --wire bf16
  python3 -m venv peer && peer/bin/pip install torch numpy && cryptomind bench ring --gloo peer/bin/python";

pub const BENCH_SCALE: &str = "\
Trains the GPT of `bench train` with the training thread and the ring of real miners. The global batch is the same for every
group, and each member has one core. `speedup` is over one miner alone, run by run in turn. `ring_share` is the share of a
step in which a member waits for the ring; `compute_ms` is the rest of it, in which the ring's own thread takes its part of the
core. A group whose members end with different states is an error.

Examples:
  cryptomind bench scale --format json
  cryptomind bench scale --worlds 1,2,4 --wire int8 --runs 9
  sudo cryptomind bench scale --netns 1gbit --format json";

pub const BENCH_TRAIN: &str = "\
One model, AdamW, f32, on values that mean nothing: the time of a step does not depend on them. The same step in
PyTorch is what to hold it against.

Examples:
  cryptomind bench train --format json
  cryptomind bench train --model gpt --threads 2 --steps 50 --profile
  cryptomind bench train --model mlp --threads 2 --steps 200";

pub const BENCH_INFER_LOCAL: &str = "\
One model on batches of the size that `bench train` uses. The same in PyTorch's eval mode is what to hold it against.

Examples:
  cryptomind bench infer-local --format json
  cryptomind bench infer-local --model cnn --threads 2 --steps 200";

pub const BENCH_QUALITY: &str = "\
Trains small models on real data with fixed recipes and holds what they reach on held-out samples against what
PyTorch reaches with the same. With --worlds, groups of processes train the same (but the language model) over QUIC, and
what they reach is held against what one alone reaches. Exit code 1 where one falls short; data that are missing are an error.

Examples:
  cryptomind bench quality --data data
  cryptomind bench quality --data data --worlds 1,2,3,4 --wires f32,int8
  cryptomind bench quality --data data --seeds 1 --format json";

pub const TASK_RUN_LOCAL: &str = "\
Trains what a task file says, on the processor of this machine and data of its own, to the bits that a miner of its
kind would come to. Ctrl-C leaves a checkpoint, with which the same command goes on.

Examples:
  cryptomind task run-local digits-task.toml digits/
  cryptomind task run-local iris-task.toml --csv iris.csv --label species
  cryptomind task run-local gpt.toml --text input.txt --context 64 --output gpt
  cryptomind task run-local gpt.toml --text more.txt --weights gpt/model.safetensors --output gpt-more";

pub const BENCH_PROMISE: &str = "\
Starts a whole network on this machine with one miner, which tests itself, and has it train four models on
handwritten digits; all of that several times. Exit code 1 where the median of a task is more than a fifth off what
the self-test promised: that of a machine that does something else meanwhile may be.

Examples:
  cryptomind bench promise --format json
  cryptomind bench promise --threads 1 --seconds 60 --rounds 1";

pub const BENCH_KILLS: &str = "\
Clients send signed transactions to a coordinator, a process of its own, which is killed at moments that
the seed draws and started again on the same folder. After each kill everything that the coordinator says
of money is held against what it had acknowledged. Exit code 1 where anything differs, or where a
recovery takes longer than 5 s; the error names the seed and the kill.

Examples:
  cryptomind bench kills
  cryptomind bench kills --kills 200 --clients 8 --seed 1 --format json
  cryptomind bench kills --kills 20 --dir kept     leaves the coordinator's folder and logs there";

pub const MARKET_SIMULATE: &str = "\
Machines and links of the scenario are hidden from the market, which knows what was measured of them. The
same tasks are then given to miners by speed alone, and by lot. Times are medians over all tasks of all
seeds; equal seeds give equal figures. What each key of a scenario means stands in three-lans.toml.

Examples:
  cryptomind market simulate config/scenarios/three-lans.toml --seeds 100 --format json
  cryptomind market simulate config/scenarios/churn.toml --seeds 5";

pub const MARKET_HONESTY: &str = "\
Two miners of ten misbehave by each policy in turn, for 10,000 paid tasks in virtual time; the rules that check, rate,
withhold and exclude are those of the market itself. A gain is over what the same miners earn in the same world when they
are honest, in tasks' pay, and is the median of all seeds. Besides: 100,000 honest tasks a seed on hardware that errs
once in 10,000, second checkers of whom 30 % collude, 1,000 fresh keys of one owner. Exit code 1 where any policy
gains, checks cost more than 6 % of paid work (under the policies up to forged_speed), an honest miner is excluded or
punished, or fresh keys get more than one owner.

Examples:
  cryptomind market honesty
  cryptomind market honesty --seeds 3
  cryptomind market honesty --format json | jq .cheat_gain_max";

pub const CONFIG: &str = "\
Examples:
  cryptomind config check miner.toml
  cryptomind config check mlp.toml --role task
  cryptomind config show
  cryptomind config show miner --config /etc/cryptomind/miner.toml";

pub const BENCH: &str = "\
Examples:
  cryptomind bench ledger
  cryptomind bench ledger --seconds 10 --clients 64 --format json
  cryptomind bench kills --kills 200 --format json";

pub const BENCH_MARKET: &str = "\
The match is the one that the coordinator makes; with --group 16 it takes longest. Then a coordinator, a process of
its own, gets thousands of miners, each with its own key and QUIC connection, that say every ten seconds that
they are there, and clients that post tasks by the clock. The calls that are timed, each from when it was due:
posting (signed, a hold opened), looking at the task, cancelling it (signed, the hold settled), offers of the miners that
are asked, the word of the one that is matched that it is ready, and heartbeats. Nothing is computed.

Examples:
  cryptomind bench market --format json
  cryptomind bench market --connections 0 --miners 1000 --group 16
  cryptomind bench market --connections 500 --posts 20 --seconds 5 --restart";

pub const BENCH_LEDGER: &str = "\
Starts a coordinator as a process of its own and clients that send it signed transactions over
QUIC, and says what of it the disk alone would take. Its folder must not be in memory (tmpfs).

Examples:
  cryptomind bench ledger --seconds 10 --clients 64 --format json
  cryptomind bench ledger --clients 1                what one client waits for an answer
  cryptomind bench ledger --recover 1000000 --dir /var/tmp/ledger
                                                     fill a ledger, kill it, see it come back";

pub const DOCTOR: &str = "\
Examples:
  cryptomind doctor
  cryptomind doctor --format json";

pub const COMPLETIONS: &str = "\
Examples:
  cryptomind completions bash > ~/.local/share/bash-completion/completions/cryptomind
  cryptomind completions zsh > ~/.zfunc/_cryptomind";

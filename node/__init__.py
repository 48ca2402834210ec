"""The program: one node that learns.

loop.py       run_round: the whole job on one screen; read this first
build.py      the only place that chooses parts
config.py     one settings tree: flag > environment > file > default
policy.py     the seam of a policy, the language-model one and a scripted one
generate.py   the seam of generation: sampled answers from token ids, weights synchronised
  generate_vllm.py, generate_transformers.py, weight_sync.py
batch.py      groups of answers and how a batch is mixed from them
learn.py      one policy-gradient step with TRL's GRPOTrainer
checkpoint.py written aside, fsynced, renamed, the last n kept
exchange.py   what the learner asks of the rest of the node: verify, share, offered
evaluate.py   held-out accuracy with standard errors
status.py     what a round did; one name per number
demo.py       the main job on one machine, and its summary
cli.py        the console script `sapo`
model.py      model and tokenizer: safetensors only
home.py       the node's directory: layout version, lock, seed
update.py     what one step did
summary.py    what a demo found; view.py the live view of a terminal
make_tiny.py  trains the embedded policy in tiny/ from nothing
  tiny_tokenizer.py, tiny_exam.py
"""

"""The instrument that decides whether sharing pays: declared arms, seeds and learning rates, run
with the product's own round, pool, admission and learner, many nodes in one process.

spec.py      the experiment as its file declares it, before anything is run
starts.py    the policies that nodes start from
swarm.py     one run: N nodes over MemoryGossip in one process
attack.py    nodes that lie, and what becomes of their lies
results.py   what a run found, one line of results.jsonl
run.py       all runs: in parallel, resumed, with progress
figures.py   statistics over runs: ratios, bootstrap intervals, rates chosen
table.py     table.md
picture.py   curves.png
"""

"""The instrument that decides whether sharing pays: declared arms, seeds and learning rates, run
with the product's own round, pool, admission and learner, many nodes in one process.

spec.py      the experiment as its file declares it, before anything is run
starts.py    the policies that nodes start from
swarm.py     one run: N nodes over MemoryGossip in one process
attack.py    nodes that lie, and what becomes of their lies
results.py   what a run found, one line of results.jsonl
run.py       all runs: in parallel, resumed, with progress
measures.py  what is asked of a run: one figure for all nodes of a role
figures.py   statistics over runs: ratios, bootstrap intervals, rates chosen
outcome.py   what was found, in words computed from the numbers
notation.py  how names and figures are written
table.py     table.md
picture.py   curves.png
report.py    both, written together
"""

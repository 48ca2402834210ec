"""The instrument that decides whether sharing pays: declared arms, seeds and learning rates, run
with the product's own round, pool, admission and learner, many nodes in one process.

What is run
  spec.py      the experiment as its file declares it; spec_file.py the file, found and checked
  plan.py      one run, fully decided
  starts.py    the policies that nodes start from
One run
  swarm.py     many whole nodes in one process, in turns; read this first
  member.py    one of them: a control process without network and disk, and a learner
  timeline.py  the time of a run; verdicts.py one verifier for all its nodes
  attack.py    nodes that lie; tally.py what the others did meanwhile
All runs
  run.py       in parallel, resumed, with progress; worker.py, job.py the processes that make them
  results.py   what a run found, one line of results.jsonl
  listing.py   what there is and what is missing; view.py what is under way
What they say
  measures.py  one figure per run and role; figures.py rates chosen, ratios, intervals
  outcome.py   the findings in words; table.py table.md, notation.py; picture.py curves.png
  report.py    both, written together
"""

"""Verifiable questions: no torch, no network.

question.py   Question = (task, index): an address that every node expands to the same text
tasks/        the Task seam; one file per kind of task
extract.py    the final answer out of free text
verifier.py   worker processes that expand and judge: limits, deadlines, never a guess
process.py    one worker process as the verifier sees it
worker.py     what runs inside such a process
sandbox.py    what a worker may do, and what is not covered
syscalls.py   which system calls a closed-in worker may make
privileges.py how a worker gives up root, and any number of threads
kernel.py     Landlock and seccomp of Linux, through ctypes
draw.py       which questions are trained on and which are held out
digest.py     fingerprints of a task's texts and verdicts, compared between nodes
hostile.py    answers that attack a careless checker
"""

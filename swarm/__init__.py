"""Messages and trust between nodes: no torch.

manifest.py   the swarm file: tasks and limits; the hash of its rules names the swarm

Step 2 brings: rollout, wire, identity, gossip, libp2p, admission, pool, ledger.
"""

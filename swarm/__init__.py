"""Messages and trust between nodes: no torch.

manifest.py   the swarm file: tasks, limits, first addresses; the hash of its rules names the swarm
protocol.py   constants that every node must share
rollout.py    Rollout and Announcement: the two things nodes exchange
wire.py       signed bytes and back, bounded before they are parsed
identity.py   ed25519 key, node id, sequences that never repeat
gossip.py     the seam between nodes: announce, fetch
  memory_gossip.py  many nodes in one process, with delay, loss and partitions
  libp2p.py         the real one; libp2p_host.py, libp2p_fixes.py, dialer.py, peer_book.py
  inbox.py, fetch.py, catalogue.py, limits.py  what both share
intake.py     announced, wanted, fetched, admitted, pooled: the life of a foreign rollout
  wanted.py            what the node has a use for, and in which order it is drawn
  hearing.py, offers.py, heard.py  what was announced
  announcements.py     the same on disk, until it expires
  catch_up.py          what was missed
  sources.py           whom to ask for it
admission.py  the checks, cheapest first; refusal.py every reason and who pays; claims.py lies
judge.py      the verifier as the trio side sees it
pool.py       rollouts at hand: bounded, deduplicated, expiring, over restarts
ledger.py     what each peer did; database.py the file of both
share.py      own rollouts: sealed, kept, announced
disk.py       small files that a crash leaves whole

Not yet: scores and bans, shards, peers behind a NAT.
"""

"""Constants that every node must share; each says what breaks if one node changes it alone."""

MAX_ENTRIES = 24
"""Rollouts named in one announcement. A node with more would be refused as malformed."""

MAX_ANNOUNCEMENT_BYTES = 8192
"""Of a signed announcement, seal included. A longer one is refused before it is parsed."""

MAX_ROLLOUT_BYTES = 2**20
"""Of a signed rollout, seal included. A longer one is neither offered nor fetched."""

MAX_ANSWERS = 64
"""Answers of one rollout, whatever the manifest allows. With more it would be malformed."""

MIN_ANSWERS = 2
"""Below this no advantage exists. Such a rollout is malformed."""

MAX_MODEL_NAME_CHARS = 200
"""Of a rollout's model name. With more it would be malformed."""

CLOCK_TOLERANCE_S = 600
"""How far a signed time may lie in a receiver's future, and how much later than its lifetime says
a rollout may still be taken. With less a node would refuse peers whose clocks are merely wrong."""

MAX_SEQUENCE = 2**53
"""Sequences are Unix milliseconds at least and below this, so that they survive doubles."""

MAX_POLICY_ROUND = 2**40
"""Rounds that an author may claim."""

TOPIC = "sapo/{swarm_id}/announce/1"
"""Where announcements are gossiped. A node elsewhere hears nobody, and nobody hears it."""

MAX_SHARDS = 64
"""Of a swarm's rules. One that allowed more would run swarms that others refuse."""

SHARD_TOPIC = TOPIC + "/{shard}"
"""Its place in a swarm with several shards. Who puts an announcement elsewhere is refused."""

FETCH_PROTOCOL = "/sapo/{swarm_id}/fetch/1"
"""How rollouts are fetched. A node with another could hear, but never get a rollout."""

PEERS_PROTOCOL = "/sapo/{swarm_id}/peers/1"
"""How nodes ask each other for addresses of further nodes. One with another stays with the peers
that it was told of, and others learn of none through it."""

MAX_FETCH_HASHES = 16
"""Rollouts asked for in one request. A request for more is refused."""

CATALOGUE_PROTOCOL = "/sapo/{swarm_id}/catalogue/1"
"""How a node asks for announcements that it missed (swarm/catalogue.py). One with another learns of
what is announced while it listens, and of nothing else."""

ANNOUNCEMENT_ID_BYTES = 8
"""Of an announcement's SHA-256 that a catalogue names it by. With another length neither side finds
what the other means."""

MAX_LISTED = 1024
"""Announcements in one page of a catalogue. A longer page is refused."""

MAX_TOLD = 512
"""Announcements asked for in one catalogue request. A request for more is refused."""

KADEMLIA_PROTOCOL = "/sapo/{swarm_id}/kad/1.0.0"
"""Lookups of node ids (swarm/kademlia.py). One with another is found only by other ways."""

"""Why announcements and rollouts are refused: one closed list, and who pays for each."""

from enum import StrEnum


class Charge(StrEnum):
    """Who pays for a refusal."""

    AUTHOR = "author"
    """Who signed the announcement: the refusal is provable by bytes that it signed, a lie."""
    CARRIER = "carrier"
    """Whose live connection brought it: a misdeed of traffic, never a lie."""
    NOBODY = "nobody"


class Refusal(StrEnum):
    """Every reason, in the order of the checks: what costs least is looked at first."""

    TOO_LARGE = "too_large"
    """An announcement above MAX_ANNOUNCEMENT_BYTES."""
    MALFORMED = "malformed"
    """An announcement that cannot be read."""
    BAD_SIGNATURE = "bad_signature"
    """An announcement that its author did not sign: anybody may have made it."""
    WRONG_SWARM = "wrong_swarm"
    """An announcement or a rollout of another swarm."""
    OWN = "own"
    """This node's own announcement came back."""
    BANNED = "banned"
    """This node's operator has banned its author, whoever carries it (swarm/bans.py). It may come
    again when the ban has ended."""
    WRONG_SHARD = "wrong_shard"
    """An announcement on another shard than its author's of that day: anybody may have put it
    there."""
    REPEATED = "repeated"
    """This announcement was heard before; or its sequence is one of a proven equivocation."""
    EXPIRED = "expired"
    """An announcement or a rollout whose lifetime is over, here or by its author's clock."""
    FROM_THE_FUTURE = "from_the_future"
    """Signed for a time later than now and CLOCK_TOLERANCE_S: a wrong clock, here or there."""
    EQUIVOCATION = "equivocation"
    """Another announcement of the same author with the same sequence was heard."""
    TOO_OFTEN = "too_often"
    """Its author announces more than anybody needs to: see swarm/limits.py. It may come later."""

    UNKNOWN_TASK = "unknown_task"
    """A task that the swarm's rules do not have."""
    TASK_NOT_JUDGED_HERE = "task_not_judged_here"
    """This node's own digest of the task differs from the manifest's."""
    TOO_MANY_ANSWERS = "too_many_answers"
    """More than `rules.max_answers`."""
    NOT_WANTED = "not_wanted"
    """The mixing rule has no use for it; it was not fetched."""
    CROWDED_OUT = "crowded_out"
    """Newer offers took its place before it was fetched."""
    FETCH_FAILED = "fetch_failed"
    """Nobody delivered it. Says nothing about anybody: connections break."""

    ROLLOUT_TOO_LARGE = "rollout_too_large"
    """A rollout above MAX_ROLLOUT_BYTES."""
    ROLLOUT_MALFORMED = "rollout_malformed"
    """The bytes that the announcer named by their hash are no rollout."""
    ROLLOUT_BAD_SIGNATURE = "rollout_bad_signature"
    """The rollout that the announcer named by its hash is not signed by its author."""
    NOT_THE_ANNOUNCERS = "not_the_announcers"
    """An announcement for somebody else's rollout: the announcer pays, not the author."""
    MISMATCH = "mismatch"
    """Size, question, number of answers, sequence or policy round are not as announced."""
    SEEN = "seen"
    """It was admitted or refused before."""
    COPIED = "copied"
    """The same question and the same answers are known from somebody else."""
    TOO_LONG = "too_long"
    """An answer above `rules.max_answer_bytes`."""
    OVER_BUDGET = "over_budget"
    """Its author has used up its share of the verifier's time: see swarm/budget.py."""
    NOT_CANONICAL = "not_canonical"
    """Another address of a question than the one that its expansion names."""
    HELD_OUT = "held_out"
    """The question's text is one that no node trains on."""
    UNSCORABLE = "unscorable"
    """An answer, or the question, met a limit of the verifier."""
    DISAGREEMENT = "disagreement"
    """Claimed and own verdicts differ, but that is no proof: see swarm/claims.py."""
    WRONG_CLAIM = "wrong_claim"
    """Claimed and own verdicts differ, and a second, fresh worker found what the first found."""

    @property
    def charge(self) -> Charge:
        """Who pays."""
        if self in _CARRIERS:
            return Charge.CARRIER
        return Charge.AUTHOR if self in _AUTHORS else Charge.NOBODY


_CARRIERS = frozenset({Refusal.TOO_LARGE, Refusal.MALFORMED, Refusal.BAD_SIGNATURE})
_AUTHORS = frozenset(
    {
        Refusal.EQUIVOCATION,
        Refusal.UNKNOWN_TASK,
        Refusal.TOO_MANY_ANSWERS,
        Refusal.ROLLOUT_TOO_LARGE,
        Refusal.ROLLOUT_MALFORMED,
        Refusal.ROLLOUT_BAD_SIGNATURE,
        Refusal.NOT_THE_ANNOUNCERS,
        Refusal.MISMATCH,
        Refusal.TOO_LONG,
        Refusal.WRONG_CLAIM,
    }
)

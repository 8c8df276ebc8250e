"""A fair policy behind HTTP whose state a kill at any moment leaves whole.

    pip install "prunefair[serve]"
    python examples/service.py service.db --arms 40

    curl -X POST localhost:8000/visits/42 -H 'content-type: application/json' \\
        -d '{"context": "segment 17"}'
    curl -X POST localhost:8000/visits/42/reward -H 'content-type: application/json' \\
        -d '{"reward": 1}'

The key of a visit is the caller's: asked twice, it is answered alike, and rewarded
twice, it counts once, so a caller that got no answer just asks again.  What was drawn,
and with which probability, is in the database before it is answered, so that a reward
may come days later, to another process.

The state of the policy is a function of the events that taught it, in their order.  An
event and what it teaches are one transaction: the row is written, the policy learns,
the row is committed, and the reward is acknowledged after that.  A killed process thus
loses no acknowledged reward, and one that was not acknowledged either counts, and then
once, or does not.  To begin again takes the last snapshot of the policy, which is in
the database, too, and the events after it; the first one is made with the database, so
that `--arms` and `--alpha` are those of a new one.  There is one process, which locks
the database, and one thread of it touches the policy.

A context is a string, a whole number or null.  A visit that is asked for again gets the
arm that it got, also one that was retired meanwhile.  `--contexts` bounds the memory:
beyond so many contexts the one that was rewarded longest ago begins anew.  Keys and
names in an address are quoted as usual, a slash as %2F.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
from collections.abc import Callable, Hashable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from prunefair.fairness.bandit_feedback import ScaleFreeBandit
from prunefair.fairness.policy import (
    BanditPolicy,
    Draw,
    check_context,
    check_reward,
    decode_key,
    encode_key,
)
from prunefair.messages import shown

TABLES = (
    "create table if not exists visits (visit text primary key, context text not null, "
    "arm text not null, probability real not null) without rowid",
    "create table if not exists events (number integer primary key, "
    "visit text unique, event text not null)",
    "create table if not exists snapshots (number integer primary key, policy blob)",
)


class Refused(ValueError):
    """A request that cannot be met, in words for its sender."""


class Store:
    """A bandit policy and the SQLite database from which it can be had again.

    Parameters
    ----------
    path : str or Path
        The database; made if there is none.  One store has it at a time.
    build : callable
        Makes the policy of a new database.
    every : int
        Events between two snapshots.
    durable : bool
        Whether an acknowledged event survives a loss of power, too, for which each
        waits for the disk; a kill it survives in any case.
    wait : float
        Seconds to wait for another process to leave the database.
    """

    def __init__(
        self,
        path: str | Path,
        build: Callable[[], BanditPolicy],
        *,
        every: int = 10_000,
        durable: bool = True,
        wait: float = 5.0,
    ):
        self.build, self.every = build, every
        self.rng = np.random.default_rng()
        self.database = sqlite3.connect(
            path, wait, isolation_level=None, check_same_thread=False
        )
        try:
            self.database.execute("pragma locking_mode = exclusive")
            self.database.execute("pragma journal_mode = wal")
            self.database.execute("begin immediate")  # takes the lock
            self.database.execute("commit")
        except sqlite3.OperationalError as error:
            raise Refused(
                f"{path} cannot be had alone ({error}); stop the other process"
            ) from error
        self.database.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
        for table in TABLES:
            self.database.execute(table)
        self.resume()
        if self.number == 0 and self.one("select number from snapshots") is None:
            self.snapshot()

    @contextmanager
    def transaction(self):
        """All of a block or nothing of it, in the database and in the policy."""
        self.database.execute("begin immediate")
        try:
            yield
            self.database.execute("commit")
        except BaseException:
            if self.database.in_transaction:
                self.database.execute("rollback")
            raise

    def one(self, query: str, *values):
        """The first row of a query, or None."""
        return self.database.execute(query, values).fetchone()

    def resume(self) -> None:
        """The policy of the last snapshot, taught the events after it."""
        found = self.one("select number, policy from snapshots order by number desc")
        if found is None:
            self.number, self.policy = 0, self.build()
        else:
            self.number = found[0]
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "policy.npz"
                path.write_bytes(found[1])
                self.policy = BanditPolicy.load(path)
        for number, event in self.database.execute(
            "select number, event from events where number > ? order by number",
            (self.number,),
        ):
            self.teach(json.loads(event))
            self.number = number

    def teach(self, event: dict) -> None:
        """Let the policy learn from an event."""
        match event["kind"]:
            case "reward":
                self.policy.update(
                    decode_key(event["context"]),
                    decode_key(event["arm"]),
                    event["reward"],
                    probability=event["probability"],
                )
            case "add":
                self.policy.add_arm(decode_key(event["arm"]), initial=event["initial"])
            case "retire":
                self.policy.retire_arm(decode_key(event["arm"]))

    def learn(self, event: dict, visit: str | None = None) -> None:
        """Write an event and let the policy learn from it, or neither."""
        try:
            with self.transaction():
                cursor = self.database.execute(
                    "insert into events (visit, event) values (?, ?)",
                    (visit, json.dumps(event)),
                )
                self.teach(event)
        except ValueError:  # nothing was learned
            raise
        except BaseException:  # something may have been, and was not written
            self.resume()
            raise
        self.number = cursor.lastrowid
        if self.number % self.every == 0:
            self.snapshot()

    def snapshot(self) -> None:
        """Keep the policy as it is now, in the place of the snapshot before."""
        with tempfile.TemporaryDirectory() as folder:
            self.policy.save(path := Path(folder) / "policy.npz")
            whole = path.read_bytes()
        with self.transaction():
            self.database.execute("delete from snapshots")
            self.database.execute(
                "insert into snapshots values (?, ?)", (self.number, whole)
            )

    def recommend(
        self, visit: str, context: Hashable, available: list | None = None
    ) -> Draw:
        """The arm of a visit: drawn when it is first asked for, the same ever after.

        Parameters
        ----------
        visit : str
            Key of the visit.
        context : hashable
        available : list, optional
            The arms that may be shown; all by default.
        """
        found = self.one("select arm, probability from visits where visit = ?", visit)
        if found:
            return Draw(decode_key(json.loads(found[0])), found[1])
        context = check_context(context)
        mask = None if available is None else self.mask(available)
        draw = self.policy.draw(context, self.rng, mask=mask)
        keys = [json.dumps(encode_key(key)) for key in (context, draw.arm)]
        self.database.execute(
            "insert into visits values (?, ?, ?, ?)", (visit, *keys, draw.probability)
        )
        return draw

    def mask(self, available: list) -> list[bool]:
        """Whether each arm is available; a retired one is not, another is an error."""
        asked, policy = {check_context(arm) for arm in available}, self.policy
        unknown = asked - set(policy.arms) - policy.retired
        if unknown:
            raise ValueError(
                f"available has {shown(min(unknown, key=repr))}, which is and was no "
                f"arm; the arms are {shown(list(policy.arms), 120)}"
            )
        mask = [arm in asked for arm in policy.arms]
        if not any(mask):
            raise ValueError(
                f"available is {shown(available)}, of which no arm is left; name "
                f"one of {shown(list(policy.arms), 120)}"
            )
        return mask

    def reward(self, visit: str, reward: float) -> bool:
        """Count the reward of a visit; whether it was not counted before."""
        reward = check_reward(reward)
        found = self.one("select event from events where visit = ?", visit)
        if found:
            if json.loads(found[0])["reward"] != reward:
                raise Refused(f"visit {visit} was rewarded otherwise before")
            return False
        drawn = self.one(
            "select context, arm, probability from visits where visit = ?", visit
        )
        if drawn is None:
            raise KeyError(visit)
        context, arm, probability = *map(json.loads, drawn[:2]), drawn[2]
        event = {"kind": "reward", "context": context, "arm": arm, "reward": reward}
        self.learn(event | {"probability": probability}, visit)
        return True

    def add_arm(self, arm: Hashable, initial: float = 1.0) -> None:
        """Begin an arm."""
        event = {"kind": "add", "arm": encode_key(check_context(arm))}
        self.learn(event | {"initial": float(initial)})

    def retire_arm(self, arm: Hashable) -> None:
        """End an arm; rewards that come for it later are refused."""
        self.learn({"kind": "retire", "arm": encode_key(check_context(arm))})


def create_app(store: Store):
    """The service as an ASGI application; its handlers run in one thread."""
    import fastapi
    from fastapi import Body, HTTPException
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    @asynccontextmanager
    async def lifespan(_):
        yield
        store.snapshot()  # told to stop, by whichever signal

    app = fastapi.FastAPI(title="Recommendations", lifespan=lifespan)

    class Quoted:
        """Routes by the address as it was sent, so that %2F is no slash."""

        def __init__(self, inner):
            self.inner = inner

        async def __call__(self, scope, receive, send):
            if "raw_path" in scope:
                scope = scope | {"path": scope["raw_path"].decode("ascii")}
            await self.inner(scope, receive, send)

    app.add_middleware(Quoted)

    def word():  # one for each parameter: it takes the name of that
        return fastapi.Path(max_length=600)  # quoted

    @app.exception_handler(RequestValidationError)
    async def explain(_, error):
        told = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return JSONResponse({"detail": told}, 422)

    def told(call, *arguments):
        try:
            return call(*arguments)
        except KeyError as error:
            raise HTTPException(404, f"there is no visit {error}") from error
        except Refused as error:
            raise HTTPException(409, str(error)) from error
        except (TypeError, ValueError) as error:
            raise HTTPException(422, str(error)) from error

    @app.post("/visits/{visit}")
    async def recommend(
        visit: str = word(),
        context: str | int | None = Body(),
        available: list[str | int] | None = Body(None),  # noqa: B008
    ):
        visit = unquote(visit)
        draw = told(store.recommend, visit, context, available)
        return {"visit": visit, "arm": draw.arm, "probability": draw.probability}

    @app.post("/visits/{visit}/reward")
    async def reward(visit: str = word(), reward: float = Body(embed=True)):
        visit = unquote(visit)
        return {"visit": visit, "counted": told(store.reward, visit, reward)}

    @app.post("/arms/{arm}")
    async def add_arm(arm: str = word(), initial: float = Body(1.0, embed=True)):
        told(store.add_arm, unquote(arm), initial)
        return {"arms": store.policy.arms}

    @app.delete("/arms/{arm}")
    async def retire_arm(arm: str = word()):
        told(store.retire_arm, unquote(arm))
        return {"arms": store.policy.arms}

    @app.get("/rewards")
    async def rewards():
        return dict(zip(map(str, store.policy.arms), store.policy.rewards.tolist()))

    return app


def main() -> None:
    """Serve until told to stop."""
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database", type=Path)
    parser.add_argument("--arms", type=int, default=40, help="of a new database")
    parser.add_argument("--alpha", type=float, default=0.9, help="of a new one")
    parser.add_argument(
        "--contexts", type=int, help="how many are remembered, of a new"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--quick", action="store_true", help="do not wait for the disk")
    given = parser.parse_args()

    def build():
        policy = ScaleFreeBandit([f"arm {k}" for k in range(given.arms)], given.alpha)
        policy.max_contexts = given.contexts
        return policy

    store = Store(given.database, build, durable=not given.quick)
    uvicorn.run(create_app(store), port=given.port, log_level="warning")


if __name__ == "__main__":
    main()

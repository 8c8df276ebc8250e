"""The service of examples/: killed at any moment, it neither loses nor doubles."""

import http.client
import importlib.util
import json
import os
import signal
import socket
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from prunefair.fairness.bandit_feedback import ScaleFreeBandit

ROOT = Path(__file__).resolve().parents[1]
ARMS = ["sport", "news", "film", "music"]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


@pytest.fixture(scope="module")
def service():
    spec = importlib.util.spec_from_file_location(
        "service", ROOT / "examples/service.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build().update("warm", "sport", 0.5)  # compiles what children would compile again
    return module


def build():
    return ScaleFreeBandit(ARMS, alpha=0.9)


def context_of(visit):
    return f"segment {int(visit) % 3}"


def reward_of(visit):
    return (int(visit) % 8) / 8


def serve(store, visits, log):
    """Draw and reward every visit, and note what was acknowledged."""
    for visit in visits:
        draw = store.recommend(visit, context_of(visit))
        os.write(log, f"{json.dumps([visit, *draw])}\n".encode())
        store.reward(visit, reward_of(visit))
        os.write(log, f"{json.dumps([visit])}\n".encode())


def forked(work):
    """Number of a child process that does `work` and nothing after it."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


def killed_before(statement, kind, path, visits, log):
    """Whether a process that serves `visits` came to its n-th statement, and died."""

    def work():
        store, left = kind(path, build, every=2, durable=False), [statement]

        def count(_):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        store.database.set_trace_callback(count)
        serve(store, visits, log)

    _, status = os.waitpid(forked(work), 0)
    return os.WIFSIGNALED(status)


def assert_whole(store, log):
    """The policy earned each reward in the database once, and what was acknowledged."""
    rows = store.database.execute("select visit, event from events").fetchall()
    counted = [visit for visit, _ in rows if visit]
    assert len(counted) == len(set(counted))
    drawn = dict(store.database.execute("select visit, arm from visits"))
    earned = dict.fromkeys(ARMS, 1.0)
    for visit in counted:
        earned[json.loads(drawn[visit])] += reward_of(visit)
    np.testing.assert_allclose(store.policy.rewards, list(earned.values()), rtol=1e-12)
    fresh = build()
    for _, event in rows:
        e = json.loads(event)
        told = {"probability": e["probability"]}
        fresh.update(e["context"], e["arm"], e["reward"], **told)
    assert list(store.policy.learners) == list(fresh.learners)
    for context, state in fresh.learners.items():
        for value, again in zip(state, store.policy.learners[context]):
            assert np.asarray(value).tobytes() == np.asarray(again).tobytes()
    for line in log.read_text().splitlines():
        visit, *draw = json.loads(line)
        assert json.loads(drawn[visit]) == draw[0] if draw else visit in counted


def kill_everywhere(service, kind, folder):
    """Kill before every statement in turn, resume, ask again; the number of kills."""
    visits = [str(k) for k in range(1, 4)]
    for statement in range(200):
        path, log = folder / f"{statement}.db", folder / f"{statement}.log"
        log.touch()
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        died = killed_before(statement, kind, path, visits, file)
        assert_whole(store := kind(path, build, every=2, durable=False), log)
        serve(store, visits, file)  # callers ask again
        os.close(file)
        assert_whole(store, log)
        assert store.one("select count(*) from events") == (len(visits),)
        store.database.close()
        if not died:
            return statement
    raise AssertionError("it never came to an end")


def test_a_kill_before_any_statement_loses_nothing_and_doubles_nothing(
    service, tmp_path
):
    assert kill_everywhere(service, service.Store, tmp_path) > 20


def mutants(service):
    class Late(service.Store):
        """Acknowledges before the event is written."""

        def reward(self, visit, reward):
            waiting = self.__dict__.setdefault("waiting", [])
            waiting.append((visit, reward))
            if len(waiting) > 1:
                super().reward(*waiting.pop(0))

    class Forgetful(service.Store):
        """Does not look whether a visit was rewarded before."""

        def learn(self, event, visit=None):
            super().learn(event | {"visit": visit}, None)

    class Behind(service.Store):
        """Keeps a snapshot under the number of the event before."""

        def snapshot(self):
            self.number -= 1
            super().snapshot()

    class Ahead(service.Store):
        """Keeps a snapshot under the number of the event to come."""

        def snapshot(self):
            self.number += 1
            super().snapshot()

    return [Late, Forgetful, Behind, Ahead]


@pytest.mark.parametrize("which", range(4))
def test_a_store_with_a_gap_fails_that_test(service, which, tmp_path):
    with pytest.raises((AssertionError, KeyError)):
        kill_everywhere(service, mutants(service)[which], tmp_path)


def test_a_commit_that_fails_is_unlearned_and_a_reward_that_is_none_is_not_written(
    service, tmp_path
):
    store = service.Store(tmp_path / "s.db", build, durable=False)
    log = tmp_path / "log"
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    serve(store, "123", file)
    os.close(file)
    store.recommend("4", "segment 1")
    with pytest.raises(ValueError, match="reward is 4; it must be a number in"):
        store.reward("4", 4)
    with pytest.raises(service.Refused, match="visit 1 was rewarded otherwise before"):
        store.reward("1", 1.0)
    with pytest.raises(KeyError):
        store.reward("never drawn", 1.0)
    assert_whole(store, log)

    def full(event):
        del store.teach
        store.teach(event)
        raise OSError("no space left on device")

    store.teach = full
    with pytest.raises(OSError, match="no space"):
        store.reward("4", 0.5)
    assert_whole(store, log)
    assert store.reward("4", 0.5) and not store.reward("4", 0.5)
    assert_whole(store, log)


def test_arms_come_and_go_in_the_service_and_are_there_when_it_resumes(
    service, tmp_path
):
    store = service.Store(tmp_path / "s.db", build, every=4, durable=False)
    drawn = [store.recommend(str(k), None, ["news", "film"]) for k in range(20)]
    assert {d.arm for d in drawn} == {"news", "film"}
    assert store.recommend("0", None) == drawn[0]
    with pytest.raises(ValueError, match="available has 'flim', which is and was no"):
        store.recommend("20", None, ["film", "flim"])
    store.add_arm("dance", 2.0), store.retire_arm("news")
    with pytest.raises(ValueError, match="arm is 'news', which was retired: rewards"):
        store.add_arm("news")  # the rewards of its old visits would count
    assert store.recommend("21", None, ["film", "news"]).arm == "film"
    with pytest.raises(ValueError, match=r"available is \['news'\], of which no arm"):
        store.recommend("22", None, ["news"])
    for visit, draw in enumerate(drawn):
        if draw.arm == "film":
            store.reward(str(visit), 1.0)
    visit = str([d.arm for d in drawn].index("news"))
    with pytest.raises(ValueError, match="arm is 'news', which was retired; drop"):
        store.reward(visit, 1.0)  # too late, and not written
    with pytest.raises(service.Refused, match="s.db cannot be had alone"):
        service.Store(tmp_path / "s.db", build, wait=0.01)
    store.database.close()
    other = lambda: ScaleFreeBandit(9, alpha=0.1)  # noqa: E731 (not a new database)
    again = service.Store(tmp_path / "s.db", other, every=4, durable=False)
    assert again.policy.arms == ("sport", "film", "music", "dance")
    np.testing.assert_array_equal(again.policy.rewards, store.policy.rewards)
    assert again.one("select count(*) from snapshots") == (1,)
    assert again.number == store.number


def test_numbers_of_numpy_are_numbers_and_what_is_none_is_refused(service, tmp_path):
    store = service.Store(tmp_path / "s.db", build, durable=False)
    store.add_arm(np.str_("dance"), np.int64(2))
    store.recommend("1", np.int64(7), list(np.array(ARMS)))
    assert store.reward("1", np.float32(0.5)) and not store.reward("1", 0.5)
    store.recommend("2", 7)
    assert store.reward("2", np.int64(1)) and list(store.policy.learners) == [7]
    with pytest.raises(ValueError, match="reward is None; it must be a number"):
        store.reward("2", None)
    with pytest.raises(TypeError, match="context is or holds"):
        store.recommend("3", object())
    store.database.close()
    again = service.Store(tmp_path / "s.db", build, durable=False)
    np.testing.assert_array_equal(again.policy.rewards, store.policy.rewards)


def test_a_limit_of_contexts_holds_and_resumes_to_the_same_memory(service, tmp_path):
    def limited():
        policy = build()
        policy.max_contexts = 3
        return policy

    states = []
    for every in (1, 4, 100):  # resumed from a snapshot, from some events, from all
        store = service.Store(
            tmp_path / f"{every}.db", limited, every=every, durable=False
        )
        store.rng = np.random.default_rng(5)
        for visit in range(13):
            store.recommend(str(visit), f"segment {visit * visit % 7}")
            store.reward(str(visit), reward_of(visit))
        store.database.close()
        again = service.Store(tmp_path / f"{every}.db", build, durable=False)
        assert again.policy.max_contexts == 3 == len(again.policy.learners)
        again.rng = np.random.default_rng(6)
        again.recommend("13", "new"), again.reward("13", 1.0)
        states.append(
            {k: s.estimates.tobytes() for k, s in again.policy.learners.items()}
        )
    assert states[0] == states[1] == states[2] and len(states[0]) == 3


class Server:
    """The service in a child process, behind a socket that outlives it."""

    def __init__(self, service, path):
        self.service, self.path = service, path
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.start()

    def start(self):
        import uvicorn

        def work():
            store = self.service.Store(self.path, build, every=5, durable=False)
            app = self.service.create_app(store)
            config = uvicorn.Config(app, log_level="critical")
            uvicorn.Server(config).run(sockets=[self.socket])

        self.child = forked(work)

    def kill(self):
        os.kill(self.child, signal.SIGKILL)

    def ask(self, way, body=None, method="POST"):
        """Status and answer, however often the service has to be started again."""
        while True:
            address = self.socket.getsockname()
            connection = http.client.HTTPConnection(*address, timeout=0.5)
            try:
                head = {"content-type": "application/json"}
                connection.request(method, way, json.dumps(body or {}), head)
                response = connection.getresponse()
                return response.status, json.loads(response.read())
            except (OSError, http.client.HTTPException):
                if os.waitpid(self.child, os.WNOHANG)[0]:
                    self.start()
            finally:
                connection.close()


def test_killed_while_it_serves_over_http_it_loses_nothing(service, tmp_path):
    pytest.importorskip("uvicorn", reason="needs the extra: pip install .[serve]")
    pytest.importorskip("fastapi", reason="needs the extra: pip install .[serve]")
    server, rng = Server(service, tmp_path / "s.db"), np.random.default_rng(3)
    log, kills = tmp_path / "log", 0
    with log.open("w") as file:
        for number in range(36):
            if number % 12 == 5:
                threading.Timer(rng.uniform(0, 0.03), server.kill).start()
                kills += 1
            visit = str(number)
            status, draw = server.ask(
                f"/visits/{visit}", {"context": context_of(visit)}
            )
            assert status == 200 and 0 < draw["probability"] <= 1
            file.write(f"{json.dumps([visit, draw['arm']])}\n")
            answer = server.ask(f"/visits/{visit}/reward", {"reward": reward_of(visit)})
            assert answer[0] == 200
            file.write(f"{json.dumps([visit])}\n")
    assert kills == 3
    assert server.ask("/visits/5/reward", {"reward": 5 / 8})[1]["counted"] is False
    assert server.ask("/visits/5/reward", {"reward": 1})[0] == 409
    assert server.ask("/visits/none/reward", {"reward": 1})[0] == 404
    assert server.ask("/visits/36", {"context": 1.5})[0] == 422
    assert server.ask("/visits/37", {"contxt": "typo"})[0] == 422
    assert server.ask("/visits/37", {"context": float("nan")})[0] == 422
    status, rewards = server.ask("/rewards", method="GET")
    server.kill(), os.waitpid(server.child, 0), server.socket.close()
    store = service.Store(tmp_path / "s.db", build, durable=False)
    assert_whole(store, log)
    assert list(rewards.values()) == store.policy.rewards.tolist()
    assert store.one("select count(*) from events") == (36,)


def test_arms_come_and_go_over_http_and_a_word_to_stop_keeps_a_snapshot(
    service, tmp_path
):
    pytest.importorskip("uvicorn", reason="needs the extra: pip install .[serve]")
    pytest.importorskip("fastapi", reason="needs the extra: pip install .[serve]")
    server = Server(service, tmp_path / "s.db")
    for key in ("a%2Fb", "a%2Freward", "%252F", "%C3%A4%3F"):
        status, draw = server.ask(f"/visits/{key}", {"context": "x"})
        assert (status, draw["visit"]) == (200, urllib.parse.unquote(key))
        assert server.ask(f"/visits/{key}/reward", {"reward": 1})[1]["counted"]
    assert server.ask("/arms/sci%2Ffi", {})[1] == {"arms": [*ARMS, "sci/fi"]}
    assert server.ask("/arms/sci%2Ffi", method="DELETE")[1] == {"arms": ARMS}
    assert server.ask("/visits/y", {"context": "x", "available": ["mews"]})[0] == 422
    assert server.ask("/arms/dance", {"initial": 2.0})[1] == {"arms": [*ARMS, "dance"]}
    status, left = server.ask("/arms/sport", method="DELETE")
    assert (status, left) == (200, {"arms": [*ARMS[1:], "dance"]})
    assert server.ask("/arms/sport", method="DELETE")[0] == 422
    os.kill(server.child, signal.SIGTERM)
    os.waitpid(server.child, 0), server.socket.close()
    store = service.Store(tmp_path / "s.db", build, durable=False)
    assert store.one("select number from snapshots") == (8,)
    assert store.policy.arms == (*ARMS[1:], "dance")

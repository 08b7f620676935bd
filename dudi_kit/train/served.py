"""A vLLM server over HTTP: it gets the student's weights through a folder, and continues prompts of token ids.

Only stock endpoints of `vllm serve` are used (looked up and tried in vLLM 0.32): `/v1/models` and `/v1/completions`
with `return_token_ids`, and, with VLLM_SERVER_DEV_MODE=1, `/collective_rpc` for the workers' own `update_config` and
`reload_weights`, and `/reset_prefix_cache`, since keys and values of older weights must not be used. Nothing else than
the address that the user agreed to is talked to: no redirect is followed, and no proxy of the environment is used.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import requests
from requests.adapters import HTTPAdapter

from dudi_kit.errors import EnvironmentLack
from dudi_kit.recipe.schema.rollouts import VllmEngine

PAUSES = (1.0, 5.0, 15.0, 45.0)
"""Seconds before each new try."""

QUOTED = 300
"""Characters of a server's complaint that are shown."""


T = TypeVar("T")


class Passing(Exception):
    """A failure that another try may mend."""


class Draw(NamedTuple):
    """How tokens are drawn; the same for all requests of a run."""

    temperature: float
    top_p: float
    stop_ids: Sequence[int]
    never: Sequence[int]
    """Ids that must not be said."""


class Said(NamedTuple):
    """What the server answered to one prompt."""

    ids: list[int]
    stopped: bool
    """At one of the stop ids, which is the last of `ids`; otherwise at the limit."""


class VllmServer:
    """The server at an address. EnvironmentLack names the address, the step and the way out where it fails."""

    def __init__(self, engine: VllmEngine, *, command: str, pauses: Sequence[float] = PAUSES) -> None:
        """command: the line that starts the server, for messages. pauses: before each new try."""
        self.url, self.timeout, self.command, self.pauses = engine.url, engine.timeout, command, pauses
        self.step: int | None = None
        """The optimizer step that it is asked for, from 0; None before the first."""

        self.troubled = False
        """Some request had to be tried again: a server that was restarted has lost the weights."""

        self._session = requests.Session()
        self._session.trust_env = False
        adapter = HTTPAdapter(pool_maxsize=engine.concurrency)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def check(self, longest: int) -> str:
        """That it answers, reads `longest` tokens and takes weights; its version, for the log."""
        model = self._models()
        room = model.get("max_model_len")
        if not isinstance(room, int) or room < longest:
            raise EnvironmentLack(
                f"the rollout server at {self.url} reads {room} tokens, and the longest prompt with its sample has "
                f"{longest}. Start it with --max-model-len {longest}: {self.command}"
            )
        self._patiently(self._take_any_weights)
        return str(self._answer("GET", "/version").get("version", "of an unknown version"))

    def load(self, folder: Path) -> None:
        """Have it read the weights of a folder, and forget what it computed with older ones."""

        def reload() -> None:
            self._take_any_weights()  # each time: a server that was started anew has forgotten it
            self._call("reload_weights", kwargs={"weights_path": str(folder.resolve())})

        self._patiently(reload)
        if self._answer("POST", "/reset_prefix_cache").get("success") is False:
            raise self._failed("it is busy with other requests; it must serve this run alone")

    def complete(self, prompt: Sequence[int], draw: Draw, *, most: int, seed: int) -> Said:
        """Continue a prompt by at most `most` tokens."""
        choice = self._complete(
            prompt=list(prompt),
            max_tokens=most,
            temperature=draw.temperature,
            top_p=draw.top_p,
            seed=seed,
            ignore_eos=True,  # the student's own stop ids, and no others
            stop_token_ids=list(draw.stop_ids),
            logit_bias={str(token): -100.0 for token in draw.never},
            return_token_ids=True,
        )
        ids, reason = choice.get("token_ids"), choice.get("finish_reason")
        if not ids or reason not in ("stop", "length") or (reason == "stop") != (ids[-1] in draw.stop_ids):
            raise self._failed(f"it answered with {ids} and finish_reason {reason!r}; vLLM of 2025 or later is needed")
        return Said(ids, stopped=reason == "stop")

    def logprobs(self, ids: Sequence[int]) -> list[float]:
        """Log-probability in nats of each token but the first, given those before it."""
        choice = self._complete(prompt=list(ids), max_tokens=1, temperature=0.0, prompt_logprobs=0)
        told = choice.get("prompt_logprobs") or []
        try:
            return [float(row[str(token)]["logprob"]) for token, row in zip(ids[1:], told[1:], strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            raise self._failed(f"it gives no log-probabilities of a prompt's tokens ({error!r})") from error

    def _complete(self, **request: Any) -> dict[str, Any]:
        # Every setting that a server may have a default for is named.
        neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "n": 1, "stream": False}
        choices = self._answer("POST", "/v1/completions", neutral | request).get("choices")
        if not isinstance(choices, list) or len(choices) != 1:
            raise self._failed(f"it answered {choices!r:.{QUOTED}} where one completion was asked for")
        return dict(choices[0])

    def _models(self) -> dict[str, Any]:
        models = self._answer("GET", "/v1/models").get("data")
        if not isinstance(models, list) or len(models) != 1:
            raise self._failed("it must serve one model, and no adapters")
        return dict(models[0])

    def _call(self, method: str, **arguments: Any) -> None:
        """Have all of the server's workers do something; once."""
        self._once("POST", "/collective_rpc", {"method": method, "timeout": self.timeout, **arguments})

    def _take_any_weights(self) -> None:
        """It may have been started without weights; ours are ordinary safetensors."""
        self._call("update_config", args=[{"load_config": {"load_format": "auto"}}])

    def _answer(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._patiently(lambda: self._once(verb, path, body))

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask, and ask again where the server may recover."""
        for pause in (*self.pauses, None):
            try:
                return ask()
            except Passing as failure:
                self.troubled = True
                if pause is None:
                    raise self._failed(f"{failure}, tried {len(self.pauses) + 1} times") from failure
                time.sleep(pause)
        raise AssertionError("the last try answers or fails")

    def _once(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object of an answer; {} where there is none. Passing where another try may help."""
        try:
            response = self._session.request(
                verb, self.url + path, json=body, timeout=self.timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise Passing(f"{type(error).__name__} at {path}") from error
        if response.status_code >= 500:
            raise Passing(f"{response.status_code} at {path}: {response.text[:QUOTED]}")
        if response.status_code != 200:
            raise self._refused(
                path, f"{response.status_code} at {path}: {response.text[:QUOTED]}", response.status_code
            )
        return self._json(response)

    def _json(self, response: Any) -> dict[str, Any]:
        if not response.content:
            return {}
        try:
            value = response.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise self._failed(f"its answer is no JSON object: {response.text[:QUOTED]!r}")
        return value

    def _refused(self, path: str, reason: str, status: int) -> EnvironmentLack:
        if status == 404 and not path.startswith("/v1/"):
            reason += ". Weights are taken with VLLM_SERVER_DEV_MODE=1 in its environment only"
        return self._failed(reason)

    def _failed(self, reason: str) -> EnvironmentLack:
        when = "before training" if self.step is None else f"at step {self.step + 1}"
        return EnvironmentLack(
            f"the rollout server at {self.url} failed {when}: {reason}. Start it again ({self.command}) and go on with "
            "--resume; or sample without it: --rollouts.engine.type=hf."
        )

"""The least that AWS must allow: the policy for it, and a look at what is allowed now."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from kinesis_nb.core.names import StreamArn, check_stream_name
from kinesis_nb.display import cell, plain, table_html, table_text
from kinesis_nb.errors import ConfigError, KinesisError, StreamNotFound
from kinesis_nb.notebook import has_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kinesis_nb.core.transport import Prober
    from kinesis_nb.display import Printer

READ = ("ListShards", "GetShardIterator", "GetRecords", "DescribeStream")
WRITE = ("PutRecords",)
LIST, SUMMARY = "ListStreams", "DescribeStreamSummary"
_FAN_OUT = ("DescribeStreamConsumer", "SubscribeToShard")
SERVICE_OF = {"AssumeRole": "sts", "Decrypt": "kms", "GenerateDataKey": "kms"}  # the rest is Kinesis
_DISABLES = {
    "ListShards": "everything that reads",
    "GetShardIterator": "read, tail, sync, samples",
    "GetRecords": "read, tail, sync, samples",
    "DescribeStream": "explore(stream), sync, and telling an expired shard from a deleted stream",
    "PutRecords": "exports",
    "Decrypt": "read, tail, sync, samples of this encrypted stream",
    "GenerateDataKey": "exports to this encrypted stream",
    LIST: "explore() without a stream, and the names suggested for a misspelt one",
    SUMMARY: "consumers, channels and queues in explore()",
}
_ONLY_DOING = "this server cannot be asked without doing it"
_NOT_ASKED = {"Decrypt": "no record to try it on", "GenerateDataKey": "only writing a record would tell"}
_PRINCIPAL = re.compile(
    r"arn:aws[a-z-]*:(iam|sts)::\d{12}:(root|(user|role|assumed-role)/[\w+=,.@/-]{1,512})", re.ASCII
)
_KMS_KEY = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[\w-]{1,256}", re.ASCII)
_COPY = (  # a page that came by plain http has no clipboard: there the selection is copied, if the browser lets it
    "const pre=this.parentNode.querySelector('pre'),say=text=>{this.textContent=text},"
    "select=()=>{getSelection().selectAllChildren(pre);"
    "say(document.execCommand('copy')?'copied':'selected: copy it yourself')};"
    "navigator.clipboard?navigator.clipboard.writeText(pre.textContent).then(()=>say('copied'),select):select()"
)


def full_name(action: str) -> str:
    """Return an action as policies name it, with its service."""
    return f"{SERVICE_OF.get(action, 'kinesis')}:{action}"


def statement(actions: Iterable[str], *resources: str, **more: object) -> dict[str, object]:
    """Return one statement of a policy that allows actions, given without their service, on resources."""
    names = list(map(full_name, actions))
    one = names[0] if len(names) == 1 else names
    return {
        "Effect": "Allow",
        "Action": one,
        "Resource": resources[0] if len(resources) == 1 else list(resources),
        **more,
    }


@dataclass(frozen=True, slots=True)
class IamPolicy:
    """What to allow, ready to be pasted into the AWS console; shows itself with buttons that copy it.

    Attributes
    ----------
    statements
        For the user or the role that signs in.
    trust_policy
        For the role itself: who may assume it; None unless asked for.
    resource_policies
        For streams that another account uses, by stream ARN; empty unless asked for.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> policy = kn.demo().iam_policy(write=["results"])
    >>> policy.actions
    ('kinesis:PutRecords',)
    """

    statements: tuple[Mapping[str, Any], ...]
    trust_policy: Mapping[str, Any] | None = None
    resource_policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])

    @property
    def actions(self) -> tuple[str, ...]:
        """All actions, in order, such as ``"kinesis:GetRecords"``."""
        return tuple(action for one in self.statements for action in _as_list(one["Action"]))

    def to_dict(self) -> dict[str, Any]:
        """Return the policy document."""
        return _document(self.statements)

    def to_json(self) -> str:
        """Return the policy document as text."""
        return json.dumps(self.to_dict(), indent=2)

    def __repr__(self) -> str:
        return f"<IamPolicy: {', '.join(self.actions) or 'nothing'}>"

    def __str__(self) -> str:
        return self.to_json()

    def _repr_pretty_(self, printer: Printer, _is_cycle: bool) -> None:  # noqa: FBT001 - as IPython calls it
        printer.text(repr(self))
        if not has_kernel() and self.statements:
            printer.text(f"\n{table_text(('action', 'resource'), self._allowed())}")

    def _allowed(self) -> Iterator[tuple[str, str]]:
        for one in self.statements:
            for action in _as_list(one["Action"]):
                yield from ((action, resource) for resource in _as_list(one["Resource"]))

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """Return the documents as HTML."""
        documents = {"Policy": self.to_dict()}
        if self.trust_policy:
            documents["Trust policy of the role"] = dict(self.trust_policy)
        documents |= {f"Resource policy of {arn}": dict(policy) for arn, policy in self.resource_policies.items()}
        return "".join(
            f'<div class="knb"><b>{cell(title)}</b> <button type="button" onclick="{_COPY}">copy</button>'
            f"<pre>{html.escape(json.dumps(document, indent=2))}</pre></div>"
            for title, document in documents.items()
        )


def _as_list(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


@dataclass(frozen=True, slots=True)
class PolicyExtras:
    """What a policy allows beyond reading and writing; see :meth:`kinesis_nb.source.Source.iam_policy`."""

    list_streams: bool = False
    summary: bool = False
    fan_out: bool = False
    kms_key: str | None = None
    cross_account: str | None = None
    trust: str | None = None
    external_id: str | None = None


def write_policy(read: Sequence[str], write: Sequence[str], extras: PolicyExtras) -> IamPolicy:
    """Return the least that reading and writing these streams, given as ARNs, needs."""
    statements = _statements(read, write, extras)
    resources = _resource_policies(read, write, extras.cross_account)
    return IamPolicy(tuple(statements), _trust(extras.trust, extras.external_id), resources)


def _statements(read: Sequence[str], write: Sequence[str], extras: PolicyExtras) -> list[dict[str, object]]:
    """Return what the user or the role that signs in needs."""
    statements = [statement(_read_actions(extras), *read)] if read else []
    if read and extras.fan_out:
        statements.append(statement(_FAN_OUT, *(f"{arn}/consumer/*" for arn in read)))
    if write:
        statements.append(statement(WRITE, *write))
    if extras.list_streams:
        statements.append(statement([LIST], "*"))  # has no resource
    if extras.kms_key is not None:
        statements.append(_key_statement(extras.kms_key, reads=bool(read), writes=bool(write)))
    return statements


def _read_actions(extras: PolicyExtras) -> list[str]:
    optional = {SUMMARY: extras.summary, "RegisterStreamConsumer": extras.fan_out}
    return [*READ, *(action for action, is_wanted in optional.items() if is_wanted)]


def _resource_policies(
    read: Sequence[str], write: Sequence[str], cross_account: str | None
) -> dict[str, dict[str, object]]:
    """Return what each stream needs for a user, a role or an account beyond its own."""
    if cross_account is None:
        return {}
    principal = {"Principal": {"AWS": _principal("cross_account", cross_account)}}
    found: dict[str, dict[str, object]] = {}
    for arn in dict.fromkeys((*read, *write)):
        actions = (*(READ if arn in read else ()), *(WRITE if arn in write else ()))
        found[arn] = _document([statement(actions, arn, **principal)])
    return found


def _trust(principal: str | None, external_id: str | None) -> dict[str, object] | None:
    if principal is None:
        return None
    allowed: dict[str, object] = {
        "Effect": "Allow",
        "Principal": {"AWS": _principal("trust", principal)},
        "Action": "sts:AssumeRole",
    }
    if external_id:
        allowed["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
    return _document([allowed])


def _key_statement(key: str, *, reads: bool, writes: bool) -> dict[str, object]:
    if not isinstance(key, str) or not _KMS_KEY.fullmatch(key):
        raise ConfigError(
            f"kms_key: {key!r} is not the ARN of a key", hint="an alias does not count in a policy: arn:aws:kms:…:key/…"
        )
    actions = [*(["Decrypt"] if reads else []), *(["GenerateDataKey"] if writes else [])]
    domain = "amazonaws.com.cn" if key.startswith("arn:aws-cn:") else "amazonaws.com"
    via = {"StringEquals": {"kms:ViaService": f"kinesis.{key.split(':')[3]}.{domain}"}}
    return statement(actions, key, Condition=via)


def _principal(name: str, arn: str) -> str:
    if not isinstance(arn, str) or not _PRINCIPAL.fullmatch(arn):
        raise ConfigError(
            f"{name}: {arn!r} is not a user, a role or an account",
            hint="it looks like arn:aws:iam::123456789012:role/reader",
        )
    return arn


def _document(statements: Iterable[Mapping[str, object]]) -> dict[str, object]:
    return {"Version": "2012-10-17", "Statement": [dict(one) for one in statements]}


class Verdict(Enum):
    """What a look at an action found.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> report = kn.demo().check(read=["orders"])
    >>> [one.action for one in report if one.verdict is not kn.Verdict.ALLOWED]
    []
    """

    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN = "unknown"


_TICKS = {Verdict.ALLOWED: "✓ allowed", Verdict.DENIED: "✗ denied", Verdict.UNKNOWN: "? unknown"}


@dataclass(frozen=True, slots=True)
class Permission:
    """One action on one stream, and whether it is allowed.

    Attributes
    ----------
    resource
        The stream's ARN, that of the key that encrypts it, or ``"*"``.
    is_required
        Whether what was asked for cannot work without.
    disables
        What does not work while it is denied.
    reason
        Why it is denied or not known; empty when it is allowed.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> first = next(iter(kn.demo().check(read=["orders"])))
    >>> first.action, first.verdict.value
    ('kinesis:ListShards', 'allowed')
    """

    action: str
    resource: str
    verdict: Verdict
    is_required: bool
    disables: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PermissionReport:
    """What is allowed and what is not, action by action; shows itself as a table.

    Examples
    --------
    >>> import kinesis_nb as kn
    >>> report = kn.demo().check(read=["orders"])
    >>> report.is_sufficient, report.denied
    (True, ())
    """

    permissions: tuple[Permission, ...]

    @property
    def is_sufficient(self) -> bool:
        """Whether everything required is allowed, as far as could be asked."""
        return not any(one.is_required and one.verdict is Verdict.DENIED for one in self.permissions)

    @property
    def denied(self) -> tuple[Permission, ...]:
        """The actions that are denied."""
        return tuple(one for one in self.permissions if one.verdict is Verdict.DENIED)

    @property
    def policy(self) -> IamPolicy:
        """The statements that would allow what is denied."""
        by_resource: dict[str, list[str]] = {}
        for one in self.denied:
            if "alias/" in one.resource:  # does not count in a policy
                continue
            by_resource.setdefault(one.resource, []).append(one.action.partition(":")[2])
        return IamPolicy(tuple(statement(actions, resource) for resource, actions in by_resource.items()))

    def __iter__(self) -> Iterator[Permission]:
        return iter(self.permissions)

    def __len__(self) -> int:
        return len(self.permissions)

    def __repr__(self) -> str:
        lines = [f"{_TICKS[one.verdict]:10} {plain(one.action)} on {plain(one.resource)}" for one in self.permissions]
        return "\n".join([f"<PermissionReport: {self._caption()}>", *lines])

    def _caption(self) -> str:
        counts = {kind: sum(one.verdict is kind for one in self.permissions) for kind in Verdict}
        return ", ".join(f"{count} {kind.value}" for kind, count in counts.items() if count) or "nothing asked"

    def _repr_html_(self) -> str:
        names = ("", "action", "on", "without it there is no", "why")
        table = table_html(names, map(_cells, self.permissions), self._caption())
        return table + (self.policy.to_html() if self.denied else "")


def _cells(one: Permission) -> tuple[str, ...]:
    action = one.action + ("" if one.is_required else " (optional)")
    lost = "" if one.verdict is Verdict.ALLOWED else one.disables
    return _TICKS[one.verdict], action, one.resource, lost, one.reason


def check(prober: Prober, read: Sequence[StreamArn], write: Sequence[StreamArn]) -> PermissionReport:
    """Ask about every action that reading and writing these streams needs; nothing is changed."""
    asked = [_ask(prober, action, arn) for arn in read for action in READ]
    asked += [_ask(prober, SUMMARY, arn, is_required=False) for arn in read]
    asked += [_ask(prober, action, arn) for arn in write for action in WRITE]
    for action, arns in (("Decrypt", read), ("GenerateDataKey", write)):
        asked += [_ask(prober, action, arn, key) for arn in arns if (key := _customer_key(prober, arn))]
    if read:
        asked.append(_ask(prober, LIST, None, is_required=False))
    return PermissionReport(tuple(asked))


def _customer_key(prober: Prober, arn: StreamArn) -> str | None:
    """Return the ARN of the customer's own key that encrypts a stream, or its alias where that is all there is."""
    key = prober.customer_key(prober.address(arn))
    return key if key is None or "/" in key else f"arn:{arn.partition}:kms:{arn.region}:{arn.account}:key/{key}"


def stream_arns(prober: Prober, region: str, name: str, streams: Iterable[str]) -> list[StreamArn]:
    """Return the ARN of each stream; for a name the service is asked.

    Parameters
    ----------
    name
        What the caller calls `streams`, for errors.
    """
    if isinstance(streams, str) or not isinstance(streams, Iterable):
        raise ConfigError(f"{name}={streams!r} is not a list of streams", hint=f'give {name}=["orders"]')
    given = [StreamArn.parse(one, region) if str(one).startswith("arn:") else check_stream_name(one) for one in streams]
    return [StreamArn.parse(_arn_of(prober, one), region) for one in dict.fromkeys(given)]


def _arn_of(prober: Prober, stream: StreamArn | str) -> str:
    arn = prober.stream_arn(stream) if isinstance(stream, str) else str(stream)
    if arn is None:
        what = f"the account of stream {stream!r} is not known"
        raise ConfigError(what, hint="give the ARN of the stream, or sts_endpoint_url=")
    return arn


def _ask(
    prober: Prober, action: str, arn: StreamArn | None, resource: str = "", *, is_required: bool = True
) -> Permission:
    try:
        allowed = prober.may(action, prober.address(arn) if arn else "")
        verdict = {True: Verdict.ALLOWED, False: Verdict.DENIED, None: Verdict.UNKNOWN}[allowed]
        reason = {True: "", False: "no policy allows it", None: _NOT_ASKED.get(action, _ONLY_DOING)}[allowed]
    except KinesisError as error:
        if not error.retryable and not isinstance(error, StreamNotFound):
            raise
        verdict, reason = Verdict.UNKNOWN, error.message
    resource = resource or str(arn or "*")
    return Permission(full_name(action), resource, verdict, is_required, _DISABLES[action], reason)

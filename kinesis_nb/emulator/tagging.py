"""Tags of streams and consumers, by either of the API's two families."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .consumers import find_consumer
from .tags import MOST_TAGS, set_tags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .protocol import Params
    from .regions import Region, Reply


def add_tags_to_stream(region: Region, params: Params) -> Reply:
    """Answer AddTagsToStream."""
    stream = region.find(params)
    region.require_status(stream, "ACTIVE", "UPDATING")
    set_tags(stream.tags, params["Tags"], stream.name, region.account.id)
    return {}


def remove_tags_from_stream(region: Region, params: Params) -> Reply:
    """Answer RemoveTagsFromStream."""
    stream = region.find(params)
    region.require_status(stream, "ACTIVE", "UPDATING")
    _remove(stream.tags, params["TagKeys"])
    return {}


def list_tags_for_stream(region: Region, params: Params) -> Reply:
    """Answer ListTagsForStream."""
    tags = region.find(params).tags
    keys = [key for key in sorted(tags) if key > (params.get("ExclusiveStartTagKey") or "")]
    shown = keys[: params.get("Limit") or MOST_TAGS]
    return {"Tags": _listed(tags, shown), "HasMoreTags": len(shown) < len(keys)}


def tag_resource(region: Region, params: Params) -> Reply:
    """Answer TagResource."""
    tags, name = _tags_of(region, params["ResourceARN"])
    set_tags(tags, params["Tags"], name, region.account.id)
    return {}


def untag_resource(region: Region, params: Params) -> Reply:
    """Answer UntagResource."""
    _remove(_tags_of(region, params["ResourceARN"])[0], params["TagKeys"])
    return {}


def list_tags_for_resource(region: Region, params: Params) -> Reply:
    """Answer ListTagsForResource."""
    tags = _tags_of(region, params["ResourceARN"])[0]
    return {"Tags": _listed(tags, sorted(tags))}


def _tags_of(region: Region, arn: str) -> tuple[dict[str, str], str]:
    if "/consumer/" in arn:
        consumer = find_consumer(region, {"ConsumerARN": arn})[1]
        return consumer.tags, consumer.name
    stream = region.find({"StreamARN": arn})
    return stream.tags, stream.name


def _remove(tags: dict[str, str], keys: Iterable[str]) -> None:
    for key in keys:
        tags.pop(key, None)


def _listed(tags: dict[str, str], keys: list[str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": tags[key]} for key in keys]

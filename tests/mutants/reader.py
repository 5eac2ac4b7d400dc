"""Defects in reading."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

MUTANTS = [
    Mutant(
        "an empty answer is the end",
        "consumer.py",
        "self._at_end = batch.next_iterator is None",
        "self._at_end = batch.next_iterator is None or not batch.rows.num_rows",
    ),
    Mutant(
        "a missing Records is an empty list", "service/wire.py", "Records: list[_Record]", "Records: list[_Record] = []"
    ),
    Mutant("a null iterator is the end", "consumer.py", "if not self.children:", "if False:"),
    Mutant(
        "a closed shard ends before its children are listed",
        "consumer.py",
        "if not self.children and self.shard.shard_id in listing:",
        "if False:",
    ),
    Mutant(
        "only one parent is waited for",
        "shards.py",
        "for parent in shard.parents if parent in self._shards)",
        "for parent in shard.parents[:1] if parent in self._shards)",
    ),
    Mutant("a child is read before its parent", "shards.py", "if not all(parent in self._finished", "if not all(True"),
    Mutant(
        "a shard is started twice",
        "shards.py",
        "self._started.update(shard.shard_id for shard in ready)",
        "pass",
    ),
    Mutant(
        "a stale listing removes shards",
        "shards.py",
        'while its children are, has left the stream.\n        """',
        'while its children are, has left the stream.\n        """\n        self._shards.clear()',
    ),
    Mutant(
        "a child starts at LATEST",
        "feed.py",
        "return start if is_listed else StartingPosition.trim_horizon()",
        "return start if is_listed else StartingPosition.latest()",
    ),
    Mutant(
        "a child starts where the read did",
        "feed.py",
        "return start if is_listed else StartingPosition.trim_horizon()",
        "return start",
    ),
    Mutant(
        "children are not observed",
        "scheduler.py",
        "self._tracker.observe_new(filter(self._feed.wanted, consumer.children))",
        "pass",
    ),
    Mutant(
        "a failed listing is the end",
        "scheduler.py",
        "if not (isinstance(error, KinesisError) and error.retryable):",
        "if True:",
    ),
    Mutant(
        "AT in place of AFTER",
        "position.py",
        'AFTER_SEQUENCE_NUMBER = "AFTER_SEQUENCE_NUMBER"',
        'AFTER_SEQUENCE_NUMBER = "AT_SEQUENCE_NUMBER"',
    ),
    Mutant(
        "an expired iterator goes on at LATEST",
        "consumer.py",
        "                self._renew_iterator(error)",
        "                self._renew_iterator(error)\n                self._position = StartingPosition.latest()",
    ),
    Mutant(
        "an expired iterator goes on at TRIM_HORIZON",
        "consumer.py",
        "                self._renew_iterator(error)",
        "                self._renew_iterator(error)\n                self._position = StartingPosition.trim_horizon()",
    ),
    Mutant(
        "the place moves before the delivery",
        "consumer.py",
        "wants_more = self._sink.deliver(self.shard, batch)\n        self._gaps.delivered(batch, gap)\n"
        "        self._advance(batch, elapsed)",
        "self._advance(batch, elapsed)\n        wants_more = self._sink.deliver(self.shard, batch)",
    ),
    Mutant(
        "a retry delivers twice",
        "consumer.py",
        "wants_more = self._sink.deliver(self.shard, batch)",
        "wants_more = self._sink.deliver(self.shard, batch)\n"
        "        if self._failures:\n            self._sink.deliver(self.shard, batch)",
    ),
    Mutant(
        "the position is not moved", "consumer.py", "self._position = StartingPosition.after(batch.read_to)", "pass"
    ),
    Mutant(
        "LATEST is not pinned",
        "consumer.py",
        "return StartingPosition.at(position.timestamp) if is_late or self._failures else position",
        "return position",
    ),
    Mutant(
        "a throttle is fatal",
        "service/translate.py",
        "return Throttled(said, retryable=True)",
        "return Throttled(said)",
    ),
    Mutant(
        "an answer without its member is empty",
        "service/client.py",
        "value = answer.get(member)",
        "value = answer.get(member, kind())",
    ),
    Mutant(
        "only the first page of a listing counts",
        "service/client.py",
        "            if not token:\n                return shards",
        "            return shards",
    ),
    Mutant(
        "a cut body is fatal",
        "service/wire.py",
        'hint="it will be asked for again", retryable=True)',
        'hint="it will be asked for again")',
    ),
    Mutant("an answer names one child", "service/wire.py", "in answer.ChildShards\n", "in answer.ChildShards[:1]\n"),
    Mutant(
        "waits grow without bound",
        "retry.py",
        "min(CAP_SECONDS, BASE_SECONDS * 2 ** min(failures, 10))",
        "BASE_SECONDS * 2 ** min(failures, 10)",
    ),
    Mutant("a throttled shard is asked at once", "retry.py", "max(wait, THROTTLED_AT_LEAST)", "wait"),
    Mutant(
        "a read stops at the first gap",
        "read.py",
        "if batch.millis_behind_latest == 0:",
        "if not batch.rows.num_rows:",
    ),
    Mutant(
        "a read stops before its end",
        "read.py",
        "> self._window.end + timedelta(minutes=1)",
        "> self._window.end - timedelta(minutes=1)",
    ),
    Mutant(
        "a read goes beyond its end",
        "read.py",
        "in_range(batch.rows, self._window.start.timestamp, self._window.end)",
        "in_range(batch.rows, self._window.start.timestamp, None)",
    ),
    Mutant(
        "a child's rows come before its parents'",
        "arrival.py",
        "max((latest[parent] for parent in parents.get(shard_id, ())), default=0)",
        "0",
    ),
    Mutant(
        "the rows of shards are not put in order", "arrival.py", 'np.argsort(key, kind="stable")', "np.arange(len(key))"
    ),
    Mutant("a moved row is said to be of another shard", "arrival.py", "pl.Series(shard[order])", "pl.Series(shard)"),
    Mutant("all rows are said to be of one shard", "arrival.py", "if len(filled) == 1:", "if filled:"),
    Mutant(
        "moved rows lose their bytes", "arrival.py", 'if table["data_raw"].null_count == table.num_rows:', "if True:"
    ),
    Mutant(
        "moved rows lose their places in an aggregate",
        "arrival.py",
        'if not pc.any(table["sub_sequence_number"].cast(pa.bool_())).as_py():',
        "if True:",
    ),
    Mutant(
        "the rows of a read outlive it",
        "arrival.py",
        "batches, self._batches = self._batches, {}",
        "batches = dict(self._batches)",
    ),
    Mutant("more is asked for than is decoded", "service/decoding.py", "self._calls >= self._room\n", "False\n"),
    Mutant(
        "what waits comes though there is no room", "service/decoding.py", "if self._calls < self._room:", "if True:"
    ),
    Mutant(
        "a far service is asked as seldom as a near one", "service/decoding.py", "self._room += 1", "self._room += 0"
    ),
    Mutant("answers pile up", "service/decoding.py", "if piled_up > 0:", "if False:"),
    Mutant("a stuck call holds all shards back", "service/decoding.py", "wait(self._most_wait)", "wait()"),
    Mutant(
        "a busy decoder is taken for a stuck one",
        "service/decoding.py",
        "self._clock() - self._went < self._most_wait",
        "False",
    ),
    Mutant(
        "a bottomless answer ends a read",
        "service/wire.py",
        "(msgspec.DecodeError, UnicodeDecodeError, RecursionError)",
        "(msgspec.DecodeError, UnicodeDecodeError)",
    ),
    Mutant(
        "half a character ends a read",
        "service/wire.py",
        "(msgspec.DecodeError, UnicodeDecodeError, RecursionError)",
        "(msgspec.DecodeError, RecursionError)",
    ),
    Mutant(
        "one core decodes for all", "service/decoding.py", "ThreadPoolExecutor(self._cores,", "ThreadPoolExecutor(1,"
    ),
    Mutant("all decode at once", "service/decoding.py", "ThreadPoolExecutor(self._cores,", "ThreadPoolExecutor(99,"),
    Mutant(
        "an answer is compared with more than there is room for",
        "service/columnar.py",
        " or len(text) * len(places) > len(body)",
        "",
    ),
    Mutant(
        "a record of very many fields takes seconds",
        "service/columnar.py",
        "len(names) == _MOST_FIELDS\n            or ",
        "",
    ),
    Mutant("a hash key is any text", "service/wire.py", ', msgspec.Meta(pattern="^[0-9]{1,39}$")', ", None"),
    Mutant(
        "an answer changes cores for nothing",
        "service/decoding.py",
        "self._calls <= 1 and self._is_at_home()",
        "False",
    ),
    Mutant(
        "a forked child waits for who is not there",
        "service/decoding.py",
        'if hasattr(os, "register_at_fork"):',
        "if False:",
    ),
    Mutant(
        "what stands between two values may be anything",
        "service/columnar.py",
        "all(_stands_at(places, gap, body) for",
        "all(True for",
    ),
    Mutant(
        "what stands between two records may be anything",
        "service/columnar.py",
        "and _stands_at(ends[-1][:-1], first.to_next, body)",
        "",
    ),
    Mutant(
        "the last record may end in any way",
        "service/columnar.py",
        "and body.startswith(first.closing, ends[-1][-1])",
        "",
    ),
    Mutant(
        "a value ends before it begins",
        "service/columnar.py",
        "and all((end >= start).all() for start, end in values)",
        "",
    ),
    Mutant("an escape is taken for what it says", "service/columnar.py", ' and (characters != ord("\\\\")).all()', ""),
    Mutant(
        "a character that must be escaped is not",
        "service/columnar.py",
        'characters.min(initial=ord(" ")) >= ord(" ")',
        "True",
    ),
    Mutant("a number begins with anything", "service/columnar.py", "is_digit[bounds[:-1]].all()", "True"),
    Mutant("a number begins with 0", "service/columnar.py", 'and not (characters[bounds[:-1]] == ord("0")).any()', ""),
    Mutant("a number ends with a point", "service/columnar.py", "and is_digit[bounds[1:] - 1].all()", ""),
    Mutant("a point has nothing behind it", "service/columnar.py", "and is_digit[behind_points].all()", ""),
    Mutant("a time is beyond all years", "service/columnar.py", "seconds.max() > LATEST", "False"),
    Mutant("a field that is there twice is judged once", "service/columnar.py", "or len(set(names)) < len(names)", ""),
    Mutant(
        "a number that nobody reads is not judged",
        "service/columnar.py",
        "            or is_number != (name == _TIME)\n",
        "",
    ),
    Mutant("a record without data is taken", "service/columnar.py", "not _NEEDED.issubset(names) or ", ""),
    Mutant(
        "a piece of an answer is looked for where another one is",
        "service/columnar.py",
        "out=is_quote[: len(piece)])) + start",
        "out=is_quote[: len(piece)]))",
    ),
    Mutant("what Arrow cannot count is split", "service/columnar.py", "or len(body) > _MOST_BYTES", ""),
    Mutant(
        "text is taken for bytes, or bytes for text",
        "service/columnar.py",
        "with suppress(pl.exceptions.PolarsError):\n        data = data.cast(pl.String)",
        "data = data.cast(pl.String)",
    ),
    Mutant(
        "records of something else in an answer are its own",
        "service/wire.py",
        "or rest.count(b'\"Records\"') != 1 ",
        "",
    ),
    Mutant("records by another name go unseen", "service/wire.py", 'or b"\\\\" in rest', ""),
    Mutant("nobody compares the two decoders", "service/wire.py", "if _columns(answer.Records) != first or", "if"),
    Mutant(
        "an aggregate beside others is one record",
        "service/wire.py",
        "split is None or may_hold_aggregates(split[0].data)",
        "split is None",
    ),
    Mutant("a chunk of Arrow's text grows over its size", "frames.py", "// CHUNK_BYTES", "// 2**30"),
    Mutant(
        "a row is lost between two chunks",
        "frames.py",
        "frame.slice(start, end - start)",
        "frame.slice(start, end - start - 1)",
    ),
    Mutant("a tail shows rows from before its start", "tail.py", "in_range(batch.rows, earliest, None)", "batch.rows"),
    Mutant(
        "the dropped count is wrong",
        "buffer.py",
        "self._dropped[shard_id] += min(drop, rows.num_rows)",
        "self._dropped[shard_id] += drop",
    ),
    Mutant(
        "a batch is cut from the wrong end",
        "buffer.py",
        "_copied(rows.slice(drop))",
        "_copied(rows.slice(0, rows.num_rows - drop))",
    ),
    Mutant("a slice counts as what it shows", "buffer.py", "int(rows.get_total_buffer_size())", "max(rows.nbytes, 1)"),
    Mutant(
        "a rest keeps what it was cut from",
        "buffer.py",
        "_copied(rows) if _held(rows) > 2 * rows.nbytes else rows",
        "rows",
    ),
    Mutant("a cut takes memory for each thread", "buffer.py", "pool = pa.system_memory_pool()", "pool = None"),
    Mutant(
        "an answer takes memory for each thread",
        "service/wire.py",
        "_POOL = pa.system_memory_pool()",
        "_POOL = pa.default_memory_pool()",
    ),
    Mutant("the parts of a batch count as all of it", "buffer.py", "self._batches[0][1] is self._rest", "False"),
    Mutant("every thread splits large answers", "service/decoding.py", "return owner is me", "return True"),
    Mutant(
        "a thread that ended has its place",
        "service/decoding.py",
        "owner is None or not owner.is_alive()",
        "self._home is None",
    ),
    Mutant("rows put back count as taken", "buffer.py", "                self._taken -= rows.num_rows\n", ""),
    Mutant("bytes cost nothing", "pace.py", "+ size / BYTES_PER_SECOND", "+ 0 * size"),
    Mutant(
        "a full answer is not waited for", "pace.py", "counted_at + FULL_REPLY_SECONDS if is_full", "0.0 if is_full"
    ),
    Mutant(
        "who is throttled keeps what was saved up", "pace.py", "self._paid_at = max(self._paid_at, now)\n", "pass\n"
    ),
    Mutant("the page never shrinks", "pace.py", "max(LEAST_PAGE, self._most // 2)", "PAGE"),
    Mutant(
        "nobody looks for a gap",
        "gaps.py",
        "return self._pending is not None",
        "self._pending = None\n        return False",
    ),
    Mutant(
        "the record that proves comes twice",
        "gaps.py",
        "return batch.behind(gap.after), None",
        "return batch, None",
    ),
    Mutant(
        "a gap is settled before the delivery",
        "consumer.py",
        "        wants_more = self._sink.deliver(self.shard, batch)\n        self._gaps.delivered(batch, gap)\n",
        "        self._gaps.delivered(batch, gap)\n        wants_more = self._sink.deliver(self.shard, batch)\n",
    ),
    Mutant(
        "what lies behind an untold gap counts as seen",
        "gaps.py",
        "seen=self.seen if gap else self._seen_with(batch)",
        "seen=self._seen_with(batch)",
    ),
    Mutant(
        "a gap is only told when its end is known",
        "gaps.py",
        "batch.millis_behind_latest > 0 and batch.next",
        "batch.next",
    ),
    Mutant(
        "a child does not know up to when its parents were read",
        "scheduler.py",
        "self._reach.get(shard.shard_id))",
        "None)",
    ),
    Mutant(
        "a shard that is gone ends without a word",
        "consumer.py",
        "            if not self._is_closed:  # else it had given everything",
        "            if False:",
    ),
    Mutant("a number that is refused is no gap", "consumer.py", "self._gaps.refuse(self._position)", "pass"),
    Mutant("a listing is believed for ever", "feed.py", "if self._listed_at <= since:", "if not self._shards:"),
    Mutant(
        "a stream that was made again goes on",
        "feed.py",
        'if known.starting_sequence_number not in ("0", listed.starting_sequence_number):',
        "if False:",
    ),
    Mutant("a missing shard is looked for without end", "consumer.py", "if self._missed > MISSING_TRIES:", "if False:"),
    Mutant(
        "LATEST is asked for however late",
        "consumer.py",
        "is_late = self._kinesis.server_time().latest - position.timestamp > LATEST_LASTS",
        "is_late = False",
    ),
    Mutant("an old listing ends the reading", "scheduler.py", "if is_complete and not is_old:", "if is_complete:"),
    Mutant(
        "a key that is blocked is fatal",
        "service/translate.py",
        "before the stream's retention ends\", retryable=True)",
        "before the stream's retention ends\")",
    ),
    Mutant("a blocked key is hammered", "retry.py", "return PROBE_SECONDS", "return 0.0"),
    Mutant("an answer may drip for ever", "service/deadline.py", "if left <= 0:", "if False:"),
    Mutant(
        "a child that left before it was listed is waited for",
        "shards.py",
        "self._unlisted.difference_update(shard.parents)",
        "pass",
    ),
    Mutant("relaxed waits for parents", "shards.py", "if not self._is_ordered:", "if False:"),
    Mutant("a bomb goes off", "payload.py", "return content if len(content) <= most else None", "return content"),
    Mutant(
        "an answer of any size is read", "service/deadline.py", "if self.left < 0:", "if False:", "tests/test_bounds.py"
    ),
    Mutant(
        "an announced size is believed",
        "service/deadline.py",
        "if not 0 <= count <= self._most:",
        "if count < 0:",
        "tests/test_bounds.py",
    ),
    Mutant("an error is read whole", "service/deadline.py", "self._most = ERROR_BYTES", "pass", "tests/test_bounds.py"),
    Mutant(
        "a head of any size is read",
        "service/deadline.py",
        "self.left = HEAD_BYTES",
        "self.left = 2**40",
        "tests/test_bounds.py",
    ),
    Mutant(
        "memory for a chunk is taken before it comes",
        "service/deadline.py",
        "        self._check(amt)",
        "        str(amt)",
        "tests/test_bounds.py",
    ),
    Mutant(
        "a listing may be as large as records",
        "service/deadline.py",
        "most: int = OTHER_BYTES",
        "most: int = RECORDS_BYTES",
        "tests/test_bounds.py",
    ),
    Mutant(
        "records are cut off as a listing is",
        "service/deadline.py",
        "most=RECORDS_BYTES)",
        "most=OTHER_BYTES)",
        "tests/test_bounds.py",
    ),
    Mutant(
        "a compressed answer is taken for records", "service/raw.py", '!= "identity":', '== "":', "tests/test_bounds.py"
    ),
    Mutant(
        "bytes that are no text end a reader",
        "service/client.py",
        "(UnicodeDecodeError, ResponseParserError, RecursionError)",
        "(ResponseParserError, RecursionError)",
        "tests/test_bounds.py",
    ),
    Mutant(
        "a stopped reader waits for its answer",
        "service/deadline.py",
        "if halt.current().is_set():",
        "if False:",
        "tests/test_stop.py",
    ),
    Mutant(
        "a stopped reader waits for a handshake",
        "service/deadline.py",
        "self.ssl_context.sslsocket_class = _SSLSocket",
        "pass",
        "tests/test_stop.py",
    ),
    Mutant(
        "a stopped reader waits for a connection",
        "service/deadline.py",
        "wait_for_write(sock, _patience(give_up))",
        "wait_for_write(sock, 30)",
        "tests/test_stop.py",
    ),
    Mutant(
        "what was given up counts as a failure",
        "service/client.py",
        "        halt.check()  # what was given up did not fail\n",
        "",
        "tests/test_stop.py",
    ),
    Mutant(
        "a stopped reader waits for a lock",
        "halt.py",
        "lock.acquire(timeout=LOOK_SECONDS)",
        "lock.acquire()",
        "tests/test_stop.py",
    ),
    Mutant(
        "a stopped reader waits for room",
        "buffer.py",
        "lambda: halt.is_set() or self._may_take(rows)",
        "lambda: self._may_take(rows)",
        "tests/test_stop.py",
    ),
    Mutant(
        "nobody wakes who waits for room", "halt.py", "            wake()\n", "            pass\n", "tests/test_stop.py"
    ),
    Mutant(
        "stop waits for nobody",
        "scheduler.py",
        "if self._left.wait_for(lambda: self._at_work <= me, timeout):",
        "if True:",
        "tests/test_stop.py",
    ),
    Mutant(
        "an interrupt makes dead threads of living",
        "scheduler.py",
        "            gone = [thread for thread in self._threads if thread not in self._at_work]\n",
        "            gone = list(self._threads)\n",
        "tests/test_stop.py",
    ),
    Mutant(
        "a thread that is left is not told",
        "scheduler.py",
        "if self._was_awaited else 0",
        "if False else 0",
        "tests/test_stop.py",
    ),
    Mutant(
        "a thread starts after the end",
        "scheduler.py",
        "            if self._stop.is_set():\n                return\n            self._threads.append",
        "            self._threads.append",
        "tests/test_stop.py",
    ),
    Mutant(
        "a start that failed leaves threads",
        "scheduler.py",
        "        except BaseException:\n            self.stop()\n            raise\n",
        "        finally:\n            pass\n",
        "tests/test_stop.py",
    ),
    Mutant("a fork is not noticed", "process.py", "if os.getpid() != made_in:", "if False:"),
]

SUITE = Suite(
    MUTANTS,
    tuple(
        f"tests/test_{name}.py"
        for name in (
            "decoding",
            "columnar",
            "consumer",
            "pace",
            "gaps",
            "payload",
            "shards",
            "buffer",
            "memory",
            "arrival",
            "reader_rules",
            "read",
            "tail",
        )
    ),
    simulation="tests.simulation",
)

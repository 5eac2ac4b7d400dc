"""Defects in forms: which problem keeps whom from acting, what outlives the fields it is of, what is stopped."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

FORMS, RUNS, VIEWS = "tests/widgets/test_forms.py", "tests/widgets/test_runs.py", "tests/widgets/test_views.py"

MUTANTS = [
    Mutant(
        "a bad name keeps a connection from being tested",
        "widgets/source_form.py",
        "if name not in (*_STREAMS, *_NAME))",
        "if name not in _STREAMS)",
        FORMS,
    ),
    Mutant(
        "a bad name is saved",
        "widgets/source_form.py",
        "lambda: self._why_not(_NAME) or self._why_no_save()",
        "lambda: self._why_not() or self._why_no_save()",
        FORMS,
    ),
    Mutant(
        "code of fields as they were",
        "widgets/base.py",
        "            self._code_view.code = self._write()\n",
        "            self._write()\n",
        FORMS,
    ),
    Mutant(
        "code of fields that are wrong",
        "widgets/base.py",
        '            self._code_view.code = ""\n',
        "            pass\n",
        FORMS,
    ),
    Mutant(
        "an error outlives the fields that caused it",
        "widgets/base.py",
        '            self.show_error(None)\n            self.say("")\n        self.refresh()',
        '            self.say("")\n        self.refresh()',
        FORMS,
    ),
    Mutant(
        "a policy outlives the streams it is for",
        "widgets/source_form.py",
        "        if name not in _NAME:\n            self._result",
        "        if not name:\n            self._result",
        FORMS,
    ),
    Mutant(
        "a form's tail stops the one of a cell",
        "widgets/own_tail.py",
        """name=f"a form's {uuid.uuid4().hex}")""",
        "name=None)",
        VIEWS,
    ),
    Mutant(
        "a tail outlives the view that stops it",
        "widgets/own_tail.py",
        "                stop_soon(view.tail)\n",
        "                pass\n",
        RUNS,
    ),
    Mutant(
        "a tail outlives its explorer's stream",
        "widgets/explorer.py",
        "        self.leave()\n        self.stream = stream\n",
        "        self.stream = stream\n",
        VIEWS,
    ),
    Mutant(
        "a tail outlives its studio's source",
        "widgets/studio.py",
        "                    content.leave()\n",
        "                    pass\n",
        RUNS,
    ),
    Mutant(
        "tabs under the name of another stream",
        "widgets/explorer.py",
        'name, typed = self.stream.name, self.fields["stream"].value',
        'name = typed = self.fields["stream"].value',
        VIEWS,
    ),
    Mutant(
        "what was cancelled is shown",
        "widgets/base.py",
        "            if self._page.busy != number:\n                late(found)\n                return\n",
        "",
        FORMS,
    ),
    Mutant(
        "an error of what was cancelled is shown",
        "widgets/base.py",
        "                late(None)\n                return\n",
        "                late(None)\n",
        FORMS,
    ),
    Mutant(
        "a late click cancels the next work",
        "widgets/panel_page.py",
        ' and content.get("number") == self.busy',
        "",
        FORMS,
    ),
    Mutant(
        "a start that was cancelled is forgotten",
        "widgets/run_form.py",
        "self._is_late = self._is_late or self._busy == _STARTING",
        "self._is_late = False",
        RUNS,
    ),
    Mutant(
        "a sync that started late is not shown",
        "widgets/run_form.py",
        "        self._begun(run)\n        self._refresh_actions()\n",
        "        self._refresh_actions()\n",
        RUNS,
    ),
    Mutant(
        "no picture beside a form",
        "widgets/base.py",
        'return {**bundle, "text/html": self._picture()}',
        "return bundle",
        FORMS,
    ),
    Mutant(
        "a secret in the picture of a form",
        "widgets/base.py",
        '                return "set"\n            case bool()',
        '                return "" if self.value is None else self.value.reveal()\n            case bool()',
        FORMS,
    ),
    Mutant(
        "errors as Rust writes them",
        "table/failures.py",
        "    while (plainer := _RUST.sub(_in_words, text)) != text:\n        text = plainer\n",
        "",
        "tests/table/test_failures.py",
    ),
]

SUITE = Suite(MUTANTS)

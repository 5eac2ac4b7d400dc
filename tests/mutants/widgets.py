"""Defects in forms: which problem keeps whom from acting, what outlives the fields it is of, what is stopped."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

FORMS = "tests/widgets/test_forms.py"

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
]

SUITE = Suite(MUTANTS)

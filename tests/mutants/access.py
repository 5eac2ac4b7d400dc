"""Defects in signing in, permissions and what is shown; each is for the tests named with it."""

from __future__ import annotations

from tests.mutants import Mutant, Suite

CREDENTIALS, PERMISSIONS = "tests/test_credentials.py", "tests/test_permissions.py"
SAVED, SECRETS, HOSTILE = "tests/test_saved.py", "tests/test_secrets.py", "tests/test_hostile.py"
CROSS_ACCOUNT = "tests/test_cross_account.py"
NETWORKING, BAD_INPUT = "tests/test_networking.py", "tests/test_bad_input.py"

MUTANTS = [
    Mutant(
        "a role is renewed at every call",
        "service/credentials.py",
        "EARLY = timedelta(seconds=300)",
        "EARLY = timedelta(seconds=900)",
        CREDENTIALS,
    ),
    Mutant(
        "a role is renewed too late",
        "service/credentials.py",
        "return now >= loaded.expires_at - ahead and not is_postponed",
        "return now >= loaded.expires_at + ahead and not is_postponed",
        CREDENTIALS,
    ),
    Mutant(
        "every thread renews",
        "service/credentials.py",
        "            if self._frozen().access_key == rejected:\n",
        "            if True:\n",
        CREDENTIALS,
    ),
    Mutant(
        "the first role is not waited for",
        "service/credentials.py",
        "if self._is_due(LATE if must_wait else EARLY):",
        "if True:",
        CREDENTIALS,
    ),
    Mutant(
        "STS is asked at every call after a failure",
        "service/credentials.py",
        "self._renew_at = self._clock.now() + AGAIN",
        "self._renew_at = None",
        CREDENTIALS,
    ),
    Mutant(
        "static keys are tried twice",
        "service/credentials.py",
        "clock, is_fixed=True)",
        "clock, is_fixed=False)",
        CREDENTIALS,
    ),
    Mutant(
        "expired credentials are final",
        "service/translate.py",
        'RENEWABLE = {\n    "ExpiredTokenException",\n',
        "RENEWABLE = {\n",
        CREDENTIALS,
    ),
    Mutant(
        "metadata version 1 is good enough",
        "service/credentials.py",
        '"ec2_metadata_v1_disabled": True',
        '"ec2_metadata_v1_disabled": False',
        CREDENTIALS,
    ),
    Mutant(
        "an instance falls back to the environment",
        "service/credentials.py",
        '            session.register_component("credential_provider", _instance_providers(session))',
        "            pass",
        CREDENTIALS,
    ),
    Mutant(
        "the external id is forgotten",
        "service/credentials.py",
        '{"ExternalId": role.external_id} if role.external_id else {}',
        "{}",
        CREDENTIALS,
    ),
    Mutant(
        "reading asks for more than it needs",
        "permissions.py",
        '"GetRecords", "DescribeStream")',
        '"GetRecords", "DescribeStream", "DescribeStreamSummary")',
        PERMISSIONS,
    ),
    Mutant(
        "check() writes where DryRun is not known",
        "service/probe.py",
        "            return error.code == _ALLOWED\n        return False",
        "            return error.code == _ALLOWED\n        return True",
        PERMISSIONS,
    ),
    Mutant(
        "a denial does not say of what",
        "service/translate.py",
        "if found := _ARN.search(message):\n        return found[1]",
        "if found := _ARN.search(message):\n        return ''",
        PERMISSIONS,
    ),
    Mutant(
        "a denial is taken for a broken table",
        "storage.py",
        "an OSError as well\n        raise\n    except OSError as error:\n",
        "an OSError as well\n        pass\n    except OSError as error:\n",
        PERMISSIONS,
    ),
    Mutant(
        "another account's stream goes by name",
        "service/client.py",
        '.split(":")[4] == arn.account else str(arn)',
        '.split(":")[4] == arn.account else arn.stream',
        CROSS_ACCOUNT,
    ),
    Mutant(
        "our own stream goes by ARN",
        "service/client.py",
        "return arn.stream if caller is not None and",
        "return arn.stream if caller is None and",
        CROSS_ACCOUNT,
    ),
    Mutant(
        "AWS_ENDPOINT_URL counts",
        "service/session.py",
        "ignore_configured_endpoint_urls=not isinstance(config.auth, Profile)",
        "ignore_configured_endpoint_urls=False",
        NETWORKING,
    ),
    Mutant(
        "a proxy that wants a password is tried for ever",
        "service/translate.py",
        'if "407" in str(error.kwargs.get("error"))',
        "if False",
        NETWORKING,
    ),
    Mutant(
        "a proxy's password is shown",
        "config.py",
        'return self._with(f":{self.password}" if self.password else "")',
        "return self.reveal()",
        NETWORKING,
    ),
    Mutant(
        "http to anywhere",
        "config.py",
        'if parts.scheme == "http" and not allow_http and not is_loopback(str(parts.hostname)):',
        "if False:",
        BAD_INPUT,
    ),
    Mutant(
        "links are followed",
        "saved.py",
        "os.O_RDONLY | _NO_LINK",
        "os.O_RDONLY",
        SAVED,
    ),
    Mutant(
        "the folder stays open to others",
        "saved.py",
        "        one.chmod(0o700)\n",
        "",
        SAVED,
    ),
    Mutant(
        "a keyword equal to its default does not override",
        "config.py",
        "if not isinstance(value, _Default)}",
        "if not isinstance(value, _Default) and value}",
        SAVED,
    ),
    Mutant(
        "logs show everything",
        "service/redact.py",
        "        if record.levelno >= logging.WARNING:",
        "        if True:",
        SECRETS,
    ),
    Mutant(
        "frames keep what was signed with",
        "errors.py",
        "        led.__traceback__ = None\n",
        "        pass\n",
        SECRETS,
    ),
    Mutant(
        "the keys of a store are shown",
        "storage.py",
        "value if name in _SHOWN else",
        "value if True else",
        SECRETS,
    ),
    Mutant(
        "a secret can be pickled",
        "credentials.py",
        '        msg = "a Secret cannot be pickled or copied"\n        raise TypeError(msg)',
        "        return (Secret, (self._value,))",
        SECRETS,
    ),
    Mutant("HTML is not escaped", "display.py", "html.escape(plain(value))", "plain(value)", HOSTILE),
    Mutant(
        "directions are obeyed",
        "text.py",
        'frozenset({"Cc", "Cf", "Cs"',
        'frozenset({"Cc", "Cs"',
        HOSTILE,
    ),
    Mutant(
        "an error quotes escape sequences",
        "errors.py",
        "self.message = one_line(message)",
        "self.message = message",
        HOSTILE,
    ),
]

SUITE = Suite(MUTANTS)

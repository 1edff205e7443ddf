"""What secrets look like, wherever they stand: tokens with a known form, addresses with credentials, assignments."""

import re

# The forms that the issuers document, so that scanners can find them.
TOKENS = {
    "a private key": (  # to its end; if that is not there, all that follows may be a part of it
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[\s\S]*?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|[\s\S]*)"
    ),
    "a PuTTY private key": r"PuTTY-User-Key-File-[23]: \S+",
    "an AWS access key": r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}",
    "a GitLab token": r"\bgl(?:pat|dt|rt|cbt|ptt|ft|oas|soat|agent|imt)-[\w-]{20,}",
    "a Slack token": r"\bxox[a-z]-[\w-]{10,}|\bxapp-[\w-]{10,}",
    "a Slack webhook": r"https://hooks\.slack\.com/services/[\w/+-]{20,}",
    "a Databricks token": r"\bdapi[a-f0-9]{32}(?:-\d)?\b",
    "a JSON web token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*",
    "a Google key": r"\bAIza[\w-]{35}|\bya29\.[\w-]{20,}|\bGOCSPX-[\w-]{20,}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "an npm token": r"\bnpm_[A-Za-z0-9]{36}",
    "a PyPI token": r"\bpypi-[\w-]{50,}",
    "a Docker token": r"\bdckr_pat_[\w-]{20,}",
    "an API key": r"\bsk-(?:ant-|proj-|svcacct-)?[\w-]{20,}|\b[rs]k_(?:live|test)_[A-Za-z0-9]{20,}",
    "a SendGrid key": r"\bSG\.[\w-]{16,}\.[\w-]{16,}",
    "an Azure account key": r"\bAccountKey=[A-Za-z0-9+/=]{40,}",
    "an age key": r"\bAGE-SECRET-KEY-1[A-Z0-9]{50,}",
    "a Vault token": r"\bhv[sbr]\.[\w-]{24,}",
    "a Wandb key": r"\bwandb_v\d_\w{20,}",
    "a DigitalOcean token": r"\bdo[opr]_v1_[a-f0-9]{64}\b",
    "a Twilio key": r"\bSK[a-f0-9]{32}\b",
}
TOKEN = re.compile("|".join(TOKENS.values()))
# One of these is in each of them. To look for these first saves seconds in a text of a megabyte.
TOKEN_MARKS = (
    *("PRIVATE KEY", "PuTTY-", "AKIA", "ASIA", "ABIA", "ACCA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("xox", "xapp-", "hooks.slack", "dapi", "eyJ", "AIza", "ya29.", "GOCSPX-", "hf_", "npm_", "pypi-", "dckr_pat_"),
    *(
        "sk-",
        "k_live_",
        "k_test_",
        "SG.",
        "AccountKey=",
        "AGE-SECRET",
        "hvs.",
        "hvb.",
        "hvr.",
        "wandb_v",
        "doo_v1_",
        "dop_v1_",
        "dor_v1_",
    ),
    *("SK", "glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "gloas-", "glsoat-"),
    *("glagent-", "glimt-"),
)

# The end of a name that holds a secret: of a variable, a key, an option, a parameter of an address.
_LONG_NAME = (
    r"(?:password|passwd|passphrase|pwd|secret|token|credentials?|apikey|"
    r"(?:api|access|account|private|secret|encryption|auth|master|shared)[_.-]?keys?)"
)
_SHORT_NAME = r"(?:pass|pat|dsn|sas|auth|key)"  # a word of any text, so it counts only in a longer name: GITHUB_PAT

# --- addresses ------------------------------------------------------------------------------------------------------

_SCHEME = r"\b[A-Za-z][\w+.-]{0,30}://"
URL_CREDENTIALS = (
    # user:password, up to the last @ of the word: a password may hold / # ? and @
    re.compile(rf"(?P<before>{_SCHEME})[^\s/@:?#\[\"'<>]*:(?P<secret>[^\s\"'<>]*)@"),
    # the same if the password holds quotes or angle brackets
    re.compile(rf"(?P<before>{_SCHEME})[^\s/@:?#\[]*:(?P<secret>[^\s/]*)@"),
    # a user, or a token
    re.compile(rf"(?P<before>{_SCHEME})(?P<secret>[^\s/?#@]*)@"),
    # user:password with a blank; a port is none
    re.compile(rf"(?P<before>{_SCHEME})[^\s/@:?#\[]*:(?!\d+(?:[^\w@]|$))(?P<secret>[^\s@]*[ \t][^\n@]*)@(?:\S*@)?"),
    # the same address as a part of another one
    re.compile(r"(?P<before>\b[A-Za-z][\w+.-]{0,30}%3A%2F%2F)(?P<secret>[^\s/&?#]*)%40", re.IGNORECASE),
    # as scp takes it: user:token@host:path; not the digest of an image
    re.compile(r"(?P<before>)(?<![\w/@.:+-])[\w.+-]{1,100}:(?P<secret>[^\s@/\"'<>]{1,500})@(?!sha256:)(?=[\w.-]+:)"),
)
NAME_MARK = re.compile(r"pass|pwd|secret|token|credential|key|pat|dsn|sas|auth|sig|jwt|x-amz|x-goog|bearer|basic", re.I)
QUERY_SECRET = re.compile(
    r"(?P<before>[?&;](?:[\w.%-]{0,60}[_.-])?"
    rf"(?:{_LONG_NAME}|{_SHORT_NAME}|sig|signature|authorization|jwt|awsaccesskeyid|x-(?:amz|goog)-credential)=)"
    r"(?P<secret>[^\s&#\"'<>]+)",
    re.IGNORECASE,
)

# --- assignments ----------------------------------------------------------------------------------------------------

AUTHORIZATION = re.compile(
    r"(?P<before>\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token|digest|negotiate)\s+)?|"
    r"\b(?:bearer|basic)\s+(?=[\w.~+/=-]*[\d.~+/=_-])(?=[\w.~+/=-]{8}))(?P<secret>[^\s\"',;]+)",
    re.IGNORECASE,
)
# --password x, --api-key=x, password: x, "token": "x". Not "a password; check ...", which assigns nothing.
ASSIGNMENT = re.compile(
    rf"(?P<before>(?<![\w.-])--?(?:[\w-]{{0,60}}[_-])?{_LONG_NAME}(?:=|\s+)"
    rf"|(?<![\w.-])(?:[\w.-]{{0,60}}[_.-])?{_LONG_NAME}[\"']?\]?\s*(?::=|(?<!=)=(?!=)|:(?!:))\s*"
    rf"|(?<![\w.-])(?![\w.-]*public)[\w.-]{{0,60}}[_.]{_SHORT_NAME}[\"']?\]?\s*(?<!=)=(?!=)\s*)"
    r"(?P<secret>(?P<quote>[\"'])(?:(?!(?P=quote))[^\n])+(?P=quote)|[^\s\"',;&)}\]]+)",
    re.IGNORECASE,
)

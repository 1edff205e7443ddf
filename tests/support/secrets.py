"""Secrets that are none: put together here, so that no file of the project holds one that a scanner finds."""

TOKENS = {
    "a private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n",
    "an AWS access key": "AKIA" + "IOSFODNN7QUARTZ2",
    "a GitHub token": "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "a fine-grained GitHub token": "github_pat_" + "11ABCDEFG0abcdefghijkl_0123456789",
    "a GitLab token": "glpat-" + "xYz123456789abcdefgh",
    "a Slack token": "xoxb-" + "2401234567-abcdefghij",
    "a Databricks token": "dapi" + "0123456789abcdef" * 2,
    "a JSON web token": "eyJ" + "hbGciOiJIUzI1NiJ9." + "eyJ" + "zdWIiOiIxMjM0In0." + "dozjgNryP4J3jVmN",
    "a Google key": "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "a Hugging Face token": "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345",
    "an API key": "sk-" + "proj-abcdefghijklmnop0123456789",
    "a PyPI token": "pypi-" + "AgEIcHlwaS5vcmcCJ" * 4,
    "an Azure account key": "AccountKey=" + "Zm9vYmFy" * 10 + "==",
}

"""The page where a token is typed, once."""

from __future__ import annotations

from services.gateway.console import frame, parts


def build(wrong: bool) -> None:
    """Builds it; `wrong` where the token before was."""
    with frame.outside():
        parts.Text("h1", "Sign in")
        with parts.block("form", method="post", action=f"{frame.PREFIX}/sign-in"):
            if wrong:
                with parts.block("div", "notice bad", role="alert"):
                    parts.Text("strong", "Nobody is known by this token.")
                    parts.Text("span", "Check it, or ask who runs the cluster for another.")
            with parts.block("label", "field"):
                parts.Text("span", "Token")
                parts.block(
                    "input",
                    "input",
                    type="password",
                    name="token",
                    required=True,
                    autofocus=True,
                    autocomplete="current-password",
                    aria_describedby="token-about",
                )
            parts.Text(
                "p",
                "make certs printed it. It stays on the server and is forgotten after 12 hours.",
                "muted",
                id="token-about",
            )
            parts.button("Sign in", None, "primary", type="submit")

"""What a browser without the token is shown: a page that asks for it, and nothing of the node.

The token is asked for once: node/gate.py then sets a cookie that scripts cannot read and that ends
with the browser's session, and takes the token out of the address bar.
"""

import hashlib
from base64 import b64encode

from starlette.responses import HTMLResponse, Response

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; max-width: 30rem; margin: 18vh auto;
  padding: 0 1.5rem; background: light-dark(#fbfbf9, #121513);
  color: light-dark(#1a1d1b, #e8ebe7); }
h1 { font-size: 1.35rem; font-weight: 600; margin: 0 0 .75rem; }
p { color: light-dark(#5c645f, #9aa49d); }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .9em; }
form { display: flex; flex-wrap: wrap; gap: .5rem; align-items: end; margin-top: 1.5rem; }
label { flex: 1 1 14rem; font-size: .9rem; }
input { display: block; width: 100%; box-sizing: border-box; }
input, button { font: inherit; color: inherit; padding: .35rem .7rem; border-radius: 5px;
  border: 1px solid light-dark(#c9cdc6, #414943); background: light-dark(#fff, #1a1e1b); }
button { cursor: pointer; }
[role="alert"] { color: light-dark(#b3261e, #ff9189); font-weight: 600; }
"""
_STYLE_HASH = b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""Of this page alone: nothing is loaded, and its form asks this node."""
WRONG = '<p role="alert">That is not the token of this node.</p>\n'

PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sapo</title>
<style>{STYLE}</style>
<h1>This page needs the node's token</h1>
%s<p>On the node's machine, <code>sapo status --home HOME</code> prints an address that opens it.
The token itself is in the file <code>api-token</code> of the home.</p>
<form action="/">
<label>Token <input name="token" type="password" autocomplete="off" required autofocus></label>
<button>Open</button>
</form>
</html>
"""


def way_in(*, is_wrong: bool = False) -> Response:
    """The page, with status 401.

    Args:
        is_wrong: a token was given, and is not the node's.
    """
    page = PAGE.replace("%s", WRONG if is_wrong else "")
    return HTMLResponse(page, 401, headers={"Content-Security-Policy": POLICY})

#!/bin/sh
# Puts secrets that came as files into the home, where the node wants them, and becomes `sapo`.
#
# Read are SECRETS (/run/secrets)/HOSTNAME.api-token, else api-token; the same for identity.key. The
# node would follow no link and read no file that others may read, so they are copied, mode 0600. A
# key that differs from the home's is an error: another key is another node.
set -eu
umask 077
secrets=${SECRETS:-/run/secrets}

find_secret() {
    for found in "$secrets/$(hostname).$1" "$secrets/$1"; do
        [ -f "$found" ] && return
    done
    return 1
}

put() { # secret, file
    cp "$1" "$2.new"
    chmod 600 "$2.new"
    mv "$2.new" "$2"
}

mkdir -p "$SAPO_HOME"
if find_secret api-token; then
    cmp -s "$found" "$SAPO_HOME/api-token" || put "$found" "$SAPO_HOME/api-token"
fi
if find_secret identity.key; then
    if [ ! -e "$SAPO_HOME/identity.key" ]; then
        put "$found" "$SAPO_HOME/identity.key"
    elif ! cmp -s "$found" "$SAPO_HOME/identity.key"; then
        echo "sapo: $found is another key than $SAPO_HOME/identity.key: this volume is another" \
            "node's; give it its own key, or an empty volume" >&2
        exit 2
    fi
fi
exec sapo "$@"

#!/bin/sh
# What deploy/compose/compose.yaml needs before its first start: the image, and beside that file
# secrets/ (the relay's key, tokens, Grafana's password) and .env (the relay's id).
#
#   deploy/compose/prepare.sh
#
# What is there stays. The files in secrets/ can be read by every user of the containers, which have
# other ids than yours; the directory can be entered by you alone.
set -eu
cd "$(dirname "$(readlink -f "$0")")"
root=$(dirname "$(dirname "$PWD")")

docker build -f "$root/deploy/docker/Dockerfile" --target cpu -t sapo-swarm:cpu "$root"

umask 077
mkdir -p secrets
for name in relay-token node1-token node2-token node3-token grafana-password; do
    [ -s "secrets/$name" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"secrets/$name"
    chmod 0444 "secrets/$name"
done

# In a container without network whose home ends with it: the key goes to a file, its id to .env.
if [ ! -s secrets/relay-key ]; then
    docker run --rm --network none --tmpfs /data:uid=10001,gid=10001,mode=0700 --entrypoint sh \
        sapo-swarm:cpu -c 'sapo init >/dev/null && cat "$SAPO_HOME/identity.key"' >secrets/.new
    mv secrets/.new secrets/relay-key
fi
chmod 0444 secrets/relay-key
id=$(docker run --rm --network none --tmpfs /data:uid=10001,gid=10001,mode=0700 \
    -v "$PWD/secrets/relay-key:/run/secrets/identity.key:ro" \
    sapo-swarm:cpu key show --json | sed -n 's/.*"node_id": *"\([A-Za-z0-9]*\)".*/\1/p')
[ -n "$id" ] || { echo "prepare: the relay's key has no id, see above" >&2; exit 1; }
echo "RELAY_ID=$id" >.env
echo "prepare: the relay is $id"

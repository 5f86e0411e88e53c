#!/usr/bin/env bash
# Writes the command `skillmesh` of this checkout into an environment: launcher.sh FOLDER
# It runs the code that stands here, whatever was installed, from whatever folder it is called in.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$(cd "$1/bin" && pwd)
# First removed: written through a link, it would replace another checkout's.
rm -f "$bin/skillmesh"
cat > "$bin/skillmesh" <<EOF
#!/usr/bin/env bash
# Written by scripts/launcher.sh. With a safe path no module of the working folder is taken for ours.
export PYTHONSAFEPATH=1 PYTHONPATH=$(printf %q "$root")\${PYTHONPATH:+:\$PYTHONPATH}
exec $(printf %q "$bin/python") -m services.gateway "\$@"
EOF
chmod +x "$bin/skillmesh"

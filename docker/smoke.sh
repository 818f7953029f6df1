#!/usr/bin/env bash
# Builds the containers, starts them, and checks from outside that they do what they are for.
# Needs Docker with the compose plugin, and curl. Leaves nothing behind but the build cache.
#
#   docker/smoke.sh                        the service, Prometheus, Grafana, then three replicas behind nginx
#   docker/smoke.sh service proxy          these only; the service is always among them
#
# PORT, PROMETHEUS_PORT and GRAFANA_PORT choose the host's ports, MODELS another folder of models.
set -euo pipefail
cd "$(dirname "$0")/.."

services=("$@")
(($#)) || services=(service prometheus grafana proxy)
wanted() { [[ " ${services[*]} " == *" $1 "* ]]; }
wanted service || { echo "the service must be among the services: docker/smoke.sh service $*" >&2; exit 2; }
export COMPOSE_PROJECT_NAME="cogan-smoke-$$"
export PORT=${PORT:-18000} PROMETHEUS_PORT=${PROMETHEUS_PORT:-19090} GRAFANA_PORT=${GRAFANA_PORT:-13000}
export GRAFANA_PASSWORD=smoke
base=http://127.0.0.1:$PORT
prometheus=http://127.0.0.1:$PROMETHEUS_PORT
grafana=http://127.0.0.1:$GRAFANA_PORT
work=$(mktemp -d)
failures=0

teardown() {
  local status=$?
  if ((status)); then docker compose logs --no-color --tail 50 || true; fi
  docker compose down --volumes --remove-orphans --rmi local --timeout 10 >/dev/null 2>&1 || true
  docker image rm "$COMPOSE_PROJECT_NAME-umask" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap teardown EXIT

check() { # SENTENCE COMMAND...: runs the command and says whether the sentence holds
  if "${@:2}" >"$work/output" 2>&1; then
    echo "ok    $1"
  else
    echo "FAIL  $1"
    sed 's/^/      /' "$work/output"
    failures=$((failures + 1))
  fi
}

in_service() { docker compose exec -T service "$@"; }
fetch() { curl --noproxy '*' --silent --show-error --max-time 30 "$@"; }

within() { # SECONDS COMMAND...: repeats the command until it succeeds; prints what the last attempt printed
  local end=$((SECONDS + $1)) status=0
  until "${@:2}" >"$work/attempt" 2>&1; do
    ((SECONDS < end)) || { status=1; break; }
    sleep 1
  done
  cat "$work/attempt"
  return "$status"
}

runs_unprivileged() { [[ $(in_service id -u) =~ ^[1-9] ]]; }
cannot_write() { in_service touch /tmp/written && ! in_service touch "$1/written"; }
has_no() { in_service python -c "import importlib.util as i, sys; sys.exit(i.find_spec('$1') is not None)"; }

starts_as_any_user() { # an id that the image does not know, as OpenShift chooses one
  docker compose run --rm --no-deps --user 4711:0 --entrypoint sh service -c '
    python -m service &
    for _ in $(seq 60); do sleep 1; python /app/healthcheck.py && exit 0; done
    exit 1'
}

modes() { docker run --rm --entrypoint find "$1" /app -printf '%m %p\n' | sort; }

is_the_same_under_any_umask() { # builds once more, from a checkout that its owner alone may read
  mkdir "$work/checkout" &&
    cp -r Dockerfile .dockerignore pyproject.toml constraints.txt service models docker "$work/checkout" &&
    chmod -R go= "$work"/checkout/{service,models,docker} &&
    docker build --quiet --tag "$COMPOSE_PROJECT_NAME-umask" "$work/checkout" &&
    diff <(modes "$(docker compose images --quiet service)") <(modes "$COMPOSE_PROJECT_NAME-umask")
}

answers_with_pairs() {
  fetch --fail -X POST "$base/generate" -H 'content-type: application/json' -d '{"seed": 7}' >"$work/pairs.json" &&
    in_service python -c '
import base64, io, json, sys
from PIL import Image
answer = json.load(sys.stdin)
(pair,) = answer["pairs"]
assert list(pair["images"]) == answer["domains"] != [], pair["images"].keys()
for url in pair["images"].values():
    head, _, text = url.partition(",")
    assert head == "data:image/png;base64", head
    with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
        image.load()
        assert image.format == "PNG" and len(image.getcolors(65536)) > 1, image
' <"$work/pairs.json"
}

repeats_itself() {
  fetch --fail -D "$work/headers" -o "$work/first" "$base/generate?seed=7&format=png" &&
    fetch --fail -o "$work/second" "$base/generate?seed=7&format=png" &&
    [[ -s $work/first ]] && cmp "$work/first" "$work/second"
}

answers_304() {
  local etag code
  etag=$(awk 'tolower($1) == "etag:" {print $2}' "$work/headers" | tr -d '\r')
  code=$(fetch -o "$work/body" -w '%{http_code}' -H "If-None-Match: $etag" "$base/generate?seed=7&format=png")
  echo "ETag $etag is answered with $code"
  [[ -n $etag && $code == 304 && ! -s $work/body ]]
}

prometheus_value() { # QUERY: the value of its only sample, or nothing
  fetch --fail --get "$prometheus/api/v1/query" --data-urlencode "query=$1" |
    sed -n 's/.*"value":\[[^,]*,"\([^"]*\)"\].*/\1/p'
}
prometheus_says() { [[ $(prometheus_value "$1") == "$2" ]]; }
prometheus_counts() { local value; value=$(prometheus_value "$1"); [[ -n $value && $value != 0 ]]; }

dashboard_is_filled() { # asks Prometheus every query of the dashboard, from within the compose network
  in_service python -c '
import json, sys, urllib.parse, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
empty = []
for panel in json.load(sys.stdin)["panels"]:
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", "1m").replace("$route", ".*")
        url = "http://prometheus:9090/api/v1/query?" + urllib.parse.urlencode({"query": query})
        with opener.open(url, timeout=5) as answer:  # an error where the query is wrong
            if not json.load(answer)["data"]["result"]:
                empty.append(query)
sys.exit("\n".join(empty) or None)
' <docker/grafana/dashboards/cogan.json
}

grafana_says() { fetch --fail -u "admin:$GRAFANA_PASSWORD" "$grafana$1" | tr -d ' \n' | grep -F "$2"; }

stops_well() {
  local container state
  container=$(docker compose ps --quiet service)
  docker compose stop service
  state=$(docker inspect --format 'exit code {{.State.ExitCode}}, killed for memory: {{.State.OOMKilled}}' "$container")
  echo "$state"
  [[ $state == "exit code 0, killed for memory: false" ]]
}

start() { # SERVICE...: what follows makes no sense unless they are up
  local sentence="$*: up, and healthy where there is a health check"
  docker compose up --detach --wait --wait-timeout 180 "$@" || { echo "FAIL  $sentence"; exit 1; }
  echo "ok    $sentence"
}

each_replica_answers_the_same() { # no replica has a cache of what another has computed
  local seed answers
  for seed in $(seq 40); do
    fetch --fail --output "$work/behind-$((seed % 4))-$seed" "$base/generate?seed=$((seed % 4))&format=png" || return
  done
  answers=$(docker compose logs --no-log-prefix proxy | sed -n 's/.*generate?seed=.* 200 .* to \([0-9.:]*\)$/\1/p')
  sort <<<"$answers" | uniq -c
  [[ $(sort -u <<<"$answers" | wc -l) == 3 && $(sha256sum "$work"/behind-* | cut -c -64 | sort -u | wc -l) == 4 ]]
}

keeps_its_prefix() { # the page of the API finds what it needs below the prefix
  fetch --fail "$base/docs" | grep -E "['\"]openapi\.json['\"]" && fetch --fail -o "$work/openapi" "$base/openapi.json"
}

is_not_reached_directly() {
  local ports
  ports=$(docker compose ps service --format '{{.Ports}}') && echo "$ports" && [[ -n $ports && $ports != *"->"* ]]
}

limits_requests() { # 400 at once, where 50 a second and 100 more are let through
  fetch --parallel --parallel-immediate --parallel-max 20 -o /dev/null \
    -w '%{http_code} %{content_type}\n' "$base/livez?[1-400]" >"$work/codes"
  sort "$work/codes" | uniq -c
  grep -q '^200 ' "$work/codes" && grep -q '^429 application/problem+json' "$work/codes" &&
    ! grep -vE '^(200|429) ' "$work/codes"
}

outlives_a_replica() { # kills one of three while requests come one after another
  local victim seed
  victim=$(docker compose ps --quiet service | head -n 1)
  for seed in $(seq 60); do
    ((seed != 20)) || docker kill "$victim"
    fetch --fail --output /dev/null "$base/generate?seed=$seed" || return
    sleep 0.05
  done
}

direct=()
for one in "${services[@]}"; do [[ $one == proxy ]] || direct+=("$one"); done
docker compose build service
start "${direct[@]}"

check "the service does not run as root" runs_unprivileged
check "it starts as any user id" starts_as_any_user
check "its image is the same under any umask of its builder" is_the_same_under_any_umask
check "its file system cannot be written, /tmp can" cannot_write /app
check "its models cannot be written" cannot_write /app/models
check "its image holds no torch" has_no torch
check "its image holds no training code" has_no training
check "/readyz answers through the published port" fetch --fail "$base/readyz"
check "POST /generate answers with a PNG for every domain" answers_with_pairs
check "GET /generate gives the same bytes twice" repeats_itself
check "its ETag is answered with 304 and no body" answers_304
if wanted prometheus; then
  check "Prometheus' target is up" within 30 prometheus_says 'up{job="cogan"}' 1
  check "Prometheus holds the service's counter" \
    within 30 prometheus_counts 'sum(cogan_http_requests_total{route="/generate"})'
  check "every query of the dashboard has an answer" within 60 dashboard_is_filled
fi
if wanted grafana; then
  check "Grafana is up" within 60 grafana_says /api/health '"database":"ok"'
  check "Grafana has the data source, and reaches Prometheus by it" \
    within 30 grafana_says /api/datasources/uid/prometheus/health '"status":"OK"'
  check "Grafana has the dashboard" within 30 grafana_says /api/dashboards/uid/cogan '"uid":"cogan"'
fi
check "the service stops with exit code 0 when told to" stops_well
if wanted proxy; then
  export COMPOSE_FILE=docker-compose.yml:docker-compose.proxy.yml
  base=$base/cogan
  start service proxy
  check "three replicas answer through nginx, each with the same bytes" each_replica_answers_the_same
  check "no replica is reached directly" is_not_reached_directly
  check "the API page works below the path prefix" keeps_its_prefix
  check "GET /generate through nginx gives the same bytes twice" repeats_itself
  check "its ETag is answered with 304 and no body, by whichever replica" answers_304
  check "a client over the limit gets 429" limits_requests
  sleep 2  # for the limit to forget
  check "no request fails when a replica is killed" outlives_a_replica
fi

((failures == 0)) || { echo "$failures failed"; exit 1; }
echo "all is well"

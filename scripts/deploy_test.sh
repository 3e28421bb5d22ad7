#!/usr/bin/env bash
# Tests what scripts/deploy/ ships, as far as it can be run: two instances and a Redis behind nginx,
# HAProxy and Caddy in turn, each with the very snippet that is shipped and over TLS, while one
# instance is restarted. And holds the other files there to the options and limits that exist.
# HUBBUB names the binary (default target/debug/hubbub).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/install.sh
hubbub=$(realpath "${HUBBUB:-target/debug/hubbub}")
deploy=$PWD/scripts/deploy
python=/usr/bin/python3
# In Debian these live where not everybody looks.
PATH=$PATH:/usr/sbin:/sbin

folder=$(mktemp -d)
redis=''
proxy=''
clients=''
declare -A instance=()
clean_up() {
  for process in $clients $proxy "${instance[@]}" $redis; do
    kill "$process" 2>/dev/null || true
  done
  wait 2>/dev/null || true
  rm -rf "$folder"
}
trap clean_up EXIT

fail() {
  echo "deploy_test: FAILED: $1" >&2
  # Last what the people saw, which tells most.
  tail -n 15 "$folder"/[!p]*.log "$folder"/people.lo[g] >&2 || true
  exit 1
}
wait_for() {
  for _ in $(seq 400); do
    grep -q -- "$2" "$1" 2>/dev/null && return
    sleep 0.05
  done
  fail "waited in vain for '$2' in $(basename "$1")"
}

# --- What is needed

# Debian starts a server as soon as it is installed; the test has its own.
server() {
  command -v "$1" >/dev/null && return
  install "$1" || return 1
  if [ "$(id -u)" -eq 0 ]; then
    systemctl disable --now "$1" >/dev/null 2>&1 || true
  else
    sudo systemctl disable --now "$1" >/dev/null 2>&1 || true
  fi
}
server redis-server || fail 'redis-server is needed'
server nginx || fail 'nginx is needed'
server haproxy || fail 'haproxy is needed'
command -v openssl >/dev/null || install openssl || fail 'openssl is needed'
"$python" -c 'import websockets' 2>/dev/null || install python3-websockets || fail 'python3-websockets is needed'
proxies='nginx haproxy'
if server caddy; then
  proxies+=' caddy'
else
  echo 'deploy_test: no caddy here; its snippet is not tested'
fi

# --- The files that nothing here can run name nothing that is not there

"$hubbub" --help >"$folder/options.txt"
"$hubbub" ready --help >>"$folder/options.txt"
known=' --build-arg --ulimit --time --locked --release --bin --features --interval --timeout '
known+=' --start-period --from --chown --no-install-recommends --appendonly --appendfsync --build --now '
known+=' --system HUBBUB_SITE HUBBUB_INSTANCES '
known+=' --cluster --cluster-enabled --cluster-config-file --cluster-node-timeout --cluster-replicas '
known+=' --cluster-require-full-coverage --cluster-yes '
for word in $(grep -rohE 'HUBBUB_[A-Z_]+|(^|[ `"(])--[a-z][a-z-]+' "$deploy" | tr -d ' `"(' | sort -u); do
  grep -qE -- "(^|[^A-Za-z_-])$word([^A-Za-z_-]|\$)" "$folder/options.txt" ||
    [[ $known == *" $word "* ]] || fail "scripts/deploy/ names $word, which hubbub does not know"
done
# shellcheck disable=SC2013 # one COPY has several words
for path in $(sed -nE 's/^COPY ([A-Za-z].*) [^ ]+$/\1/p' "$deploy/Dockerfile"); do
  [ -e "$path" ] || fail "the Dockerfile copies $path, which is not there"
  grep -qx "!$path" "$deploy/Dockerfile.dockerignore" || fail "$path does not get into the image's build"
done
value() {
  sed -nE "s/^(hubbub +hard +)?$2[ =]+([0-9]+)\$/\\2/p" "$deploy/$1"
}
users=50000
threads=$((8 * users / 7 + 1))
[ $((4 * threads + 1000 + 16 * 64)) -le "$(value 99-hubbub.conf vm.max_map_count)" ] || fail 'vm.max_map_count'
[ $((threads + 32)) -le "$(value 99-hubbub.conf kernel.threads-max)" ] || fail 'kernel.threads-max'
[ $((threads + 32)) -le "$(value 99-hubbub.conf kernel.pid_max)" ] || fail 'kernel.pid_max'
[ $((threads + 32)) -le "$(value hubbub.service TasksMax)" ] || fail 'TasksMax'
[ $((threads + 32)) -le "$(value limits.conf nproc)" ] || fail 'nproc'
[ $((users + 64)) -le "$(value hubbub.service LimitNOFILE)" ] || fail 'LimitNOFILE'
[ $((users + 64)) -le "$(value limits.conf nofile)" ] || fail 'nofile'
while read -r key; do
  [ -e "/proc/sys/${key//.//}" ] || fail "this kernel has no $key"
done < <(sed -nE 's/^([a-z0-9_.-]+) = .*/\1/p' "$deploy/99-hubbub.conf")
echo 'deploy_test: options, files and limits that are named exist'

if command -v systemd-analyze >/dev/null; then
  sed "s|/usr/local/bin/hubbub|$hubbub|" "$deploy/hubbub.service" >"$folder/hubbub.service"
  systemd-analyze verify "$folder/hubbub.service" >"$folder/systemd.log" 2>&1 || fail 'the unit is not valid'
  [ ! -s "$folder/systemd.log" ] || fail 'systemd warns about the unit'
  # 10 is exposed to everything. The network is what is left, and has to be.
  systemd-analyze security --no-pager --offline=true --threshold=15 "$folder/hubbub.service" \
    >"$folder/systemd.log" 2>&1 || fail 'the unit is exposed more than 1.5'
  rm "$folder/systemd.log"
  echo 'deploy_test: the systemd unit is valid and closed'
else
  echo 'deploy_test: no systemd-analyze here; the unit is not looked at'
fi

# --- Two instances, and what the proxies have in common

cert() {
  openssl req -x509 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -keyout "$folder/privkey.pem" -out "$folder/fullchain.pem" \
    -subj /CN=localhost -addext 'subjectAltName=DNS:localhost' 2>"$folder/openssl.log" ||
    fail 'openssl makes no certificate'
  cat "$folder/fullchain.pem" "$folder/privkey.pem" >"$folder/both.pem"
}
cert
read -r one two secure plain < <("$python" -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*[s.getsockname()[1] for s in sockets])')

redis-server --port 0 --unixsocket "$folder/redis.sock" --save '' >"$folder/redis.log" &
redis=$!
wait_for "$folder/redis.log" 'eady to accept connections'

# Ping every second, to see within seconds that it keeps idle connections from timing out.
start_instance() {
  # Or the last run's line would be taken for this one's.
  rm -f "$folder/$1.out"
  HUBBUB_REDIS="redis+unix://$folder/redis.sock" HUBBUB_SEND_RATE=0 HUBBUB_PING_INTERVAL=1 \
    HUBBUB_TRUSTED_PROXY=127.0.0.1 \
    "$hubbub" serve --listen "127.0.0.1:$2" >"$folder/$1.out" 2>>"$folder/$1.log" &
  instance[$1]=$!
  wait_for "$folder/$1.out" 'listening on'
}
start_instance one "$one"
start_instance two "$two"

# The shipped file with other addresses, paths and time-outs. Each must be there to be changed.
adapt() {
  local file=$1 script=''
  shift
  for change; do
    grep -qE -- "${change%%=>*}" "$deploy/$file" || fail "$file has no ${change%%=>*}"
    script+="s|${change%%=>*}|${change##*=>}|;"
  done
  sed -E "$script" "$deploy/$file"
}

start_nginx() {
  cat >"$folder/nginx-main.conf" <<END
daemon off;
pid $folder/nginx.pid;
error_log stderr;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path $folder/nginx-1;
    proxy_temp_path $folder/nginx-2;
    fastcgi_temp_path $folder/nginx-3;
    uwsgi_temp_path $folder/nginx-4;
    scgi_temp_path $folder/nginx-5;
    include $folder/nginx.conf;
}
END
  adapt nginx.conf "127\.0\.0\.1:8081=>127.0.0.1:$one" "127\.0\.0\.1:8082=>127.0.0.1:$two" \
    "listen 80;=>listen 127.0.0.1:$plain;" "listen 443 ssl=>listen 127.0.0.1:$secure ssl" \
    "/etc/ssl/chat\.example=>$folder" 'server_name chat\.example=>server_name localhost' \
    '_timeout 90s=>_timeout 3s' >"$folder/nginx.conf"
  nginx -t -e stderr -p "$folder" -c "$folder/nginx-main.conf" >"$folder/nginx.log" 2>&1 || fail 'nginx -t'
  nginx -e stderr -p "$folder" -c "$folder/nginx-main.conf" >"$folder/nginx.log" 2>&1 &
  proxy=$!
}
start_haproxy() {
  adapt haproxy.cfg "127\.0\.0\.1:8081=>127.0.0.1:$one" "127\.0\.0\.1:8082=>127.0.0.1:$two" \
    "bind :80=>bind 127.0.0.1:$plain" "bind :443=>bind 127.0.0.1:$secure" \
    "/etc/ssl/chat\.example=>$folder" 'maxconn 20000=>maxconn 200' \
    'timeout tunnel 90s=>timeout tunnel 3s' >"$folder/haproxy.cfg"
  haproxy -c -f "$folder/haproxy.cfg" >"$folder/haproxy.log" 2>&1 || fail 'haproxy -c'
  haproxy -db -f "$folder/haproxy.cfg" >"$folder/haproxy.log" 2>&1 &
  proxy=$!
}
# Takes everything from the environment, but for what must not touch this machine. The certificate is
# from Caddy's own authority.
start_caddy() {
  cat >"$folder/Caddyfile" <<END
{
	admin off
	skip_install_trust
	default_bind 127.0.0.1
	http_port $plain
	https_port $secure
}
import $deploy/Caddyfile
END
  local command=(env HOME="$folder" XDG_DATA_HOME="$folder" XDG_CONFIG_HOME="$folder"
    HUBBUB_SITE=localhost HUBBUB_INSTANCES="127.0.0.1:$one 127.0.0.1:$two"
    caddy)
  "${command[@]}" validate --adapter caddyfile --config "$folder/Caddyfile" >"$folder/caddy.log" 2>&1 ||
    fail 'caddy validate'
  "${command[@]}" run --adapter caddyfile --config "$folder/Caddyfile" >"$folder/caddy.log" 2>&1 &
  proxy=$!
  authority=$folder/caddy/pki/authorities/local/root.crt
}

# --- People, who chat through a proxy while one instance is restarted

cat >"$folder/people.py" <<'PY'
import asyncio, http.client, itertools, json, os, ssl, sys, time
import websockets
import websockets.exceptions

room, secure, plain, authority, one, two, restarted = sys.argv[1:]
secure, plain = int(secure), int(plain)
# A client waits this long for anything, at the most.
PATIENCE = 20
# Longer than the proxies' time-outs in this test, which are 3 s.
IDLE = 6
THE_END = 'the end'


def say(line):
    print(line, flush=True)


def get(path, port=secure):
    if port == secure:
        server = http.client.HTTPSConnection('localhost', port, timeout=PATIENCE, context=tls)
    else:
        server = http.client.HTTPConnection('127.0.0.1', port, timeout=PATIENCE)
    server.request('GET', path, headers={'Host': f'localhost:{port}'})
    answer = server.getresponse()
    answer.read()
    return answer.status, answer.getheader('Location', '')


class Person:
    """A connection in the JSON rendering, in the room."""

    @classmethod
    async def enter(cls, name, since=None, url=None):
        self = cls()
        url = url or f'wss://localhost:{secure}'
        self.socket = await asyncio.wait_for(
            websockets.connect(
                f'{url}/chat/{name}',
                ssl=tls if url.startswith('wss') else None,
                subprotocols=['hubbub.v1'],
                origin=url.replace('ws', 'http', 1),
                ping_interval=None,
                # Who does not read must still see its goodbye answered.
                max_queue=None,
            ),
            PATIENCE,
        )
        self.instance = (await self.event('welcome'))['instance']
        await self.tell(type='join', room=room, **({'since': since} if since else {}))
        self.room = await self.event('room')
        return self

    async def tell(self, **command):
        await self.socket.send(json.dumps(command))

    async def next(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE))

    async def event(self, kind):
        while True:
            event = await self.next()
            if event['type'] == kind:
                return event
            # What a draining instance no longer takes is repeated on the next connection.
            assert event['type'] != 'error' or event['code'] == 'closing', event

    async def send(self, text, ref):
        await self.tell(type='send', room=room, text=text, ref=ref)
        while True:
            event = await self.event('sent')
            if event['ref'] == ref:
                return event['id']

    async def leave(self):
        await self.socket.close()


GONE = (OSError, websockets.exceptions.WebSocketException)


async def patiently(enter):
    """As a client should: again after a moment, while nobody can be reached."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await enter()
        except GONE as error:
            assert time.monotonic() < deadline, f'cannot come back: {error!r}'
            await asyncio.sleep(0.2)


async def on(instance, name):
    """Enters until it is that instance. The proxy prefers the one with the fewest connections."""
    others = []
    deadline = time.monotonic() + PATIENCE
    while True:
        person = await patiently(lambda: Person.enter(name))
        if person.instance == instance:
            break
        others.append(person)
        assert time.monotonic() < deadline, 'the proxy does not use this instance'
        if len(others) > 4:
            await others.pop(0).leave()
            await asyncio.sleep(0.2)
    for other in others:
        await other.leave()
    return person


async def direct(port):
    person = await Person.enter('prober', url=f'ws://127.0.0.1:{port}')
    await person.leave()
    return person.instance


async def wait_for_proxy():
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if get('/readyz')[0] == 200:
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, 'the proxy does not answer with 200 to /readyz'
        await asyncio.sleep(0.05)


async def routes():
    assert get('/')[0] == 200, get('/')
    assert get('/livez')[0] == 200, get('/livez')
    for path in ['/metrics', '//metrics', '/metrics?x']:
        assert get(path)[0] == 404, f'{path} is exposed: {get(path)}'
    status, location = get('/chat', plain)
    assert status in (301, 308) and location.startswith('https://localhost'), (status, location)
    try:
        await websockets.connect(
            f'wss://localhost:{secure}/chat/eve', ssl=tls, origin='https://evil.example'
        )
        raise AssertionError('a page of another origin was let in')
    except websockets.exceptions.InvalidStatusCode as error:
        assert error.status_code == 403, error
    say('routes: fine')


async def comes_from_elsewhere():
    """Connects from another address. What it writes about its address itself must not count."""
    forged = {'X-Forwarded-For': '192.0.2.1', 'Forwarded': 'for=192.0.2.2'}
    mallory = await websockets.connect(
        f'wss://localhost:{secure}/chat/mallory-{room}',
        ssl=tls,
        host='127.0.0.1',
        server_hostname='localhost',
        local_addr=('127.0.0.9', 0),
        extra_headers=forged,
    )
    await mallory.close()


async def chat(instances):
    alice, bob = [await on(instance, name) for instance, name in zip(instances, ['alice', 'bob'])]
    for speaker, listener, text in [(alice, bob, 'hello'), (bob, alice, 'hi')]:
        await speaker.send(text, text)
        while (await listener.event('message'))['text'] != text:
            pass
    await alice.leave()
    await bob.leave()
    say('chat: fine')


async def idle(instance):
    person = await on(instance, 'idler')
    # In no room nothing is heard, and so nothing but pings passes.
    await person.tell(type='leave', room=room)
    await person.event('parted')
    await asyncio.sleep(IDLE)
    await person.tell(type='members', room=room)
    answer = await person.next()
    assert answer['type'] in ('members', 'error'), f'not idle: {answer}'
    await person.leave()
    say('idle: fine')


async def talk(person, closings, finished):
    """Sends one after the other, each until it is acknowledged. What it sent, by id."""
    sent = {}
    for number in itertools.count():
        last = finished.is_set()
        text = THE_END if last else f'line {number}'
        while True:
            try:
                sent[await person.send(text, text)] = text
                break
            except GONE as error:
                closings.append(getattr(error, 'code', None))
                person = await patiently(lambda: Person.enter('talker'))
        if last:
            await person.leave()
            return sent
        await asyncio.sleep(0.02)
        if number == 50:
            say('restart it now')


async def listen(person, closings):
    """Hears everything from `person.room` up to the end; comes back with `since`."""
    heard, last = [], person.room['last']
    while not heard or heard[-1][1] != THE_END:
        try:
            event = await person.next()
        except GONE as error:
            closings.append(getattr(error, 'code', None))
            # While it is away, the talker is back already.
            await asyncio.sleep(1)
            person = await patiently(lambda: Person.enter('listener', since=last))
            assert person.room['recovered'], person.room
            event = {'type': 'none'}
            for message in person.room['messages']:
                heard.append((message['id'], message['text']))
        if event['type'] == 'message':
            heard.append((event['id'], event['text']))
        assert event['type'] != 'gap', event
        last = heard[-1][0] if heard else last
    await person.leave()
    return heard


async def restart(instances):
    victim = instances[0]
    closings, finished = [], asyncio.Event()
    talker = await on(victim, 'talker')
    listener = await on(victim, 'listener')
    listening = asyncio.ensure_future(listen(listener, closings))
    talking = asyncio.ensure_future(talk(talker, closings, finished))
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(restarted):
        for task in (talking, listening):
            if task.done():
                task.result()
                raise AssertionError('one ended too early')
        assert time.monotonic() < deadline, 'it was not restarted'
        await asyncio.sleep(0.05)
    again = [await direct(port) for port in (one, two)]
    assert again[0] != victim and again[1] == instances[1], (instances, again)
    for instance in again:
        await (await on(instance, 'visitor')).leave()
    say('both are used again')
    # And a while of this, too.
    await asyncio.sleep(1)
    finished.set()
    sent = await talking
    heard = await asyncio.wait_for(listening, PATIENCE)
    assert heard == list(sent.items()), (len(heard), len(sent), heard[-3:], list(sent.items())[-3:])
    texts = [f'line {n}' for n in range(len(sent) - 1)] + [THE_END]
    assert list(sent.values()) == texts, texts
    assert closings == [1012, 1012], f'closed otherwise than with 1012 each: {closings}'
    say(f'restart: {len(sent)} sent, each heard once and in order')


async def main():
    global tls
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(authority):
        assert time.monotonic() < deadline, f'no {authority}'
        await asyncio.sleep(0.05)
    tls = ssl.create_default_context(cafile=authority)
    await wait_for_proxy()
    await routes()
    await comes_from_elsewhere()
    instances = [await direct(port) for port in (one, two)]
    await chat(instances)
    await asyncio.gather(idle(instances[1]), restart(instances))
    say('all is fine')


asyncio.run(main())
PY

for name in $proxies; do
  begun=$SECONDS
  authority=$folder/fullchain.pem
  "start_$name"
  # Or what the last ones said would be taken for what these say.
  rm -f "$folder/restarted" "$folder/people.log"
  timeout 60 "$python" "$folder/people.py" "$name" "$secure" "$plain" "$authority" "$one" "$two" \
    "$folder/restarted" >"$folder/people.log" 2>&1 &
  clients=$!
  # Either it gets so far, or it has ended and says why.
  until grep -qs 'restart it now' "$folder/people.log"; do
    kill -0 "$clients" 2>/dev/null || fail "through $name"
    sleep 0.05
  done
  kill "${instance[one]}"
  wait "${instance[one]}" || fail 'the instance did not end well'
  start_instance one "$one"
  touch "$folder/restarted"
  wait "$clients" || fail "through $name"
  clients=''
  grep -qh "\"mallory-$name\" connected from 127.0.0.9 through 127.0.0.1:" "$folder/one.log" "$folder/two.log" ||
    fail "the client's address is lost in $name"
  kill "$proxy"
  wait "$proxy" || true
  proxy=''
  echo "deploy_test: $name, $((SECONDS - begun)) s: $(grep '^restart: ' "$folder/people.log")"
done
echo 'deploy_test: passed'

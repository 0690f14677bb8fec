# njs reads and writes zones through variables, and the pattern of the OpenID Connect reference implementation works: set
# a variable that is part of a key, then use the value in the same request.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

needs_modules('js');

my $node = node(modules => [qw(stream js zonemesh)], workers => 2);
$node->write_file('script.js', <<'JS');
function read(r)    { r.return(200, '[' + r.variables.value + ']'); }
function write(r)   { r.variables.value = r.args.v; r.return(200, '[' + r.variables.value + ']'); }
function twice(r)   {
    const before = r.variables.value;
    r.variables.value = 'first';
    const between = r.variables.value;
    r.variables.value = 'second';
    r.return(200, [before, between, r.variables.value].join(' '));
}
function bytes(r)   {
    let all = '';
    for (let n = 0; n < 256; n++) { all += String.fromCharCode(n); }
    r.variables.value = all;
    r.return(204);
}
function upper(r)   { return r.variables.value.toUpperCase(); }
function count(r)   { const n = Number(r.variables.value || 0) + 1; r.variables.value = n; return n; }
async function later(r) {
    const reply = await r.subrequest('/read', r.variables.args);
    r.variables.value = reply.responseText + '!';
    r.return(200, r.variables.value);
}

// As the reference implementation does: the login keeps a secret under a key of its own making, the callback finds it by
// what the client brings, and opens a session under the request's identity.
function login(r) {
    r.variables.pkce_id = 'id-' + r.args.user;
    r.variables.pkce_code_verifier = 'secret of ' + r.args.user;
    r.return(302, '/callback?state=' + r.variables.pkce_id);
}
function callback(r) {
    r.variables.pkce_id = r.args.state;
    const secret = r.variables.pkce_code_verifier;
    if (!secret) { r.return(403); return; }
    r.variables.new_session = 'token for the ' + secret;
    r.variables.idp_sid = 'sid-' + r.args.state;
    r.variables.client_sid = r.variables.request_id;
    r.headersOut['Set-Cookie'] = 'auth_token=' + r.variables.request_id;
    r.return(200, r.variables.new_session);
}
function logout(r) {
    r.variables.session_jwt = '-';
    r.return(200, r.variables.session_jwt);
}
export default { read, write, twice, bytes, upper, count, later, login, callback, logout };
JS
$node->configure(http => <<'CONF')->start;
    js_path %%PREFIX%%;
    js_import main from script.js;

    keyval_zone zone=one:1m timeout=1h;
    keyval $arg_key $value zone=one;
    js_set $upper main.upper;
    js_set $count main.count;

    js_var $pkce_id;
    js_var $idp_sid;
    keyval_zone zone=oidc_id_tokens:1M timeout=1h;
    keyval_zone zone=oidc_sids:1M timeout=1h;
    keyval_zone zone=oidc_pkce:128K timeout=90s;
    keyval $cookie_auth_token $session_jwt        zone=oidc_id_tokens;
    keyval $request_id        $new_session        zone=oidc_id_tokens;
    keyval $idp_sid           $client_sid         zone=oidc_sids;
    keyval $pkce_id           $pkce_code_verifier zone=oidc_pkce;

    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        location /api      { api write=on; }
        location /read     { js_content main.read; }
        location /write    { js_content main.write; }
        location /twice    { js_content main.twice; }
        location /bytes    { js_content main.bytes; }
        location /later    { js_content main.later; }
        location /plain    { return 200 "[$value]"; }
        location /upper    { return 200 "$upper"; }
        location /count    { return 200 "$count"; }
        location /login    { js_content main.login; }
        location /callback { js_content main.callback; }
        location /logout   { js_content main.logout; }
        location /         { if ($session_jwt = "") { return 403; } return 200 "$session_jwt"; }
    }
CONF

sub body { return $node->get(@_)->body }

$node->add('one', 'k', 'v');
is(body('/read?key=k'), '[v]', 'a script reads');
is(body('/write?key=s&v=by_script'), '[by_script]', 'a script writes, and reads what it wrote');
is($node->keyvals('one')->{s}, 'by_script', '... and the API has it');
is(body('/plain?key=s'), '[by_script]', '... and so have requests without a script');
is(body('/twice?key=s'), 'by_script first second', 'each access looks the value up anew');
is(body('/upper?key=k'), 'V', 'js_set reads');
is(body("/count?key=n"), $_, "js_set writes: $_") for 1 .. 3;
is($node->keyvals('one')->{n}, 3, '... and the API has it');
is(body('/later?key=k'), '[v]!', 'a script that waited for a subrequest writes');
is($node->keyvals('one')->{k}, '[v]!', '... and the API has it');
is($node->get('/bytes?key=b')->status, 204, 'a value of every character below 256');
ok($node->keyvals('one')->{b} eq join('', map { chr } 0 .. 255), '... is kept whole, as UTF-8');

# A login.
is($node->get('/')->status, 403, 'without a session');
my $login = $node->get('/login?user=alice');
is($login->status, 302, 'the login leads on');
is_deeply($node->keyvals('oidc_pkce'), { 'id-alice' => 'secret of alice' }, '... and keeps a secret under a key that the script has made');
is($node->get('/callback?state=id-bob')->status, 403, 'the callback of another finds none');
my ($path) = $login->header('Location') =~ m{(/callback.*)};
my $callback = $node->get($path);
is($callback->body, 'token for the secret of alice', 'the callback finds it, opens a session and reads it, in one request');
my ($cookie) = $callback->header('Set-Cookie') =~ /^(auth_token=(\w+))$/ or die 'no cookie';
my ($id) = $cookie =~ /=(.*)/;
is_deeply($node->keyvals('oidc_sids'), { 'sid-id-alice' => $id }, '... and keeps its identity under that of the provider');
is(body('/', headers => { Cookie => $cookie }), 'token for the secret of alice', 'with a session');
is(body('/logout', headers => { Cookie => $cookie }), '-', 'the logout overwrites it');
is(body('/', headers => { Cookie => $cookie }), '-', '... for all');

$node->reload;
is(body('/plain?key=s'), '[second]', 'after a reload all is there');
is(body("/count?key=n"), 4, '... and can be written');

done_testing;

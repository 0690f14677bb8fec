# The zones of the OpenID Connect reference implementation: alone, kept in files, and shared by a cluster. (t/scripting_js.t
# has the part that njs plays in it.)

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;
use ZoneMesh::Cluster;
use ZoneMesh::Given;

my $zones = <<'CONF';
    keyval_zone zone=oidc_id_tokens:1M state=/var/lib/nginx/state/oidc_id_tokens.json timeout=1h;
    keyval_zone zone=oidc_sids:1M state=/var/lib/nginx/state/oidc_sids.json timeout=8h;
    keyval_zone zone=oidc_pkce:128K timeout=90s;
CONF
my $shared = <<'CONF';
    keyval_zone zone=oidc_id_tokens:1M timeout=1h sync;
    keyval_zone zone=oidc_access_tokens:1M timeout=1h sync;
    keyval_zone zone=oidc_sids:1M timeout=8h sync;
    keyval_zone zone=oidc_pkce:128K timeout=90s sync;
CONF
my $keyvals = <<'CONF';
    keyval $cookie_auth_token $session_jwt zone=oidc_id_tokens;
    keyval $request_id $new_session zone=oidc_id_tokens;
    keyval $idp_sid $client_sid zone=oidc_sids;
    keyval $pkce_id $pkce_code_verifier zone=oidc_pkce;
CONF
# The part of its script, as far as directives can play it: the login leaves a secret that the callback looks for.
my $server = <<'CONF';
    server {
        listen 127.0.0.1:%%PORT%%;
        set $pkce_id "";
        set $idp_sid "";
        location /api/ { api write=on; allow 127.0.0.1; deny all; access_log off; }
        location /login {
            set $pkce_id $arg_state;
            set $pkce_code_verifier "secret of $arg_state";
            return 302 "/callback?state=$arg_state";
        }
        location /callback {
            set $pkce_id $arg_state;
            if ($pkce_code_verifier = "") { return 403; }
            set $new_session "token for the $pkce_code_verifier";
            set $idp_sid "sid-$arg_state";
            set $client_sid $request_id;
            add_header Set-Cookie "auth_token=$request_id";
            return 200 "$new_session";
        }
        # The provider ends a session that it knows by its own identity.
        location /backchannel {
            set $idp_sid $arg_sid;
            set $ended $client_sid;
            return 200 "$ended";
        }
        location /logout { set $session_jwt "-"; return 204; }
        location / {
            if ($session_jwt = "")  { return 401; }
            if ($session_jwt = "-") { return 401; }
            return 200 "$session_jwt";
        }
    }
CONF

# A user's way through it: each step on the node whose turn it is.
sub user {
    my ($name, @nodes) = @_;
    my $turn = sub { push @nodes, shift @nodes; return $nodes[-1] };
    my $many = @nodes > 1 ? 5 : 0;    # on one node everything is there at once
    is($turn->()->get('/')->status, 401, "$name: without a session");
    my $login = $turn->()->get("/login?state=$name");
    is($login->status, 302, "$name: the login leads to the callback");
    my ($path) = $login->header('Location') =~ m{(/callback\?.*)};
    my $node = $turn->();
    my $callback;
    ok(wait_for(sub { ($callback = $node->get($path))->status == 200 }, $many), "$name: which finds what the login has left")
        or return;
    is($callback->body, "token for the secret of $name", "$name: a session is opened and read, in one request");
    my ($cookie, $id) = $callback->header('Set-Cookie') =~ /^(auth_token=(\w+))/;
    $node = $turn->();
    ok(wait_for(sub { $node->get('/', headers => { Cookie => $cookie })->body eq $callback->body }, $many), "$name: it is valid");
    is($turn->()->get('/', headers => { Cookie => 'auth_token=other' })->status, 401, "$name: another is not");
    $node = $turn->();
    ok(wait_for(sub { $node->get("/backchannel?sid=sid-$name")->body eq $id }, $many), "$name: the provider's name for it leads to it");
    is($turn->()->get('/logout', headers => { Cookie => $cookie })->status, 204, "$name: logs out");
    for my $node (@nodes) {
        ok(wait_for(sub { $node->get('/', headers => { Cookie => $cookie })->status == 401 }, $many), "$name: and is, on " . $node->name);
    }
    return $id;
}

{
    my $node = node(name => 'alone', workers => 2);
    my $folder = $node->prefix . '/state';
    mkdir $folder or die $!;
    chmod 0777, $folder;
    $node->configure(http => given($zones, '/var/lib/nginx/state' => $folder) . $keyvals . $server)->start;
    my $id = user('alice', $node);
    is($node->keyvals('oidc_id_tokens')->{$id}, '-', 'the zone has the session as it ended');
    $node->reload;
    is($node->keyvals('oidc_id_tokens')->{$id}, '-', '... after a reload, too');
    user('bob', $node);
    ok(defined $node->quit, 'nginx is stopped');
    $node->start;
    is($node->keyvals('oidc_id_tokens')->{$id}, '-', '... and has the sessions of before when it is started again');
    is($node->keyvals('oidc_sids')->{'sid-alice'}, $id, '... and the names that the provider has for them');
    is_deeply($node->keyvals('oidc_pkce'), {}, '... but not what is kept in no file');
}
{
    my @nodes = cluster(3, not_started => 1);
    $_->configure(http => $shared . $keyvals . $server)->start for @nodes;
    connected(2, @nodes);
    user($_, @nodes) for qw(carol dave);
    user('erin', reverse @nodes);
}

done_testing;

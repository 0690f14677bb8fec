/*
 * Stands for the sticky module of an nginx that has one (1.29.6 and later): a module with a directive of that name, which says
 * what it is given. MODULE_NAME is what the nginx knows it by.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


static char *
ngx_http_native_sticky(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t   *word;
    ngx_uint_t   i;

    word = cf->args->elts;

    if (ngx_strcmp(word[1].data, "bad") == 0) {
        return "is bad";
    }

    for (i = 1; i < cf->args->nelts; i++) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0, "native sticky, word %ui: \"%V\"", i, &word[i]);
    }

    return NGX_CONF_OK;
}


static ngx_command_t  ngx_http_native_commands[] = {

    { ngx_string("sticky"),
      NGX_HTTP_UPS_CONF|NGX_CONF_2MORE,
      ngx_http_native_sticky,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_native_ctx = {
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};


ngx_module_t  ngx_http_native_module = {
    NGX_MODULE_V1,
    &ngx_http_native_ctx,
    ngx_http_native_commands,
    NGX_HTTP_MODULE,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NGX_MODULE_V1_PADDING
};


ngx_module_t *ngx_modules[] = { &ngx_http_native_module, NULL };
char *ngx_module_names[] = { MODULE_NAME, NULL };
char *ngx_module_order[] = { NULL };

"""All URLs of the project."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.routers import DefaultRouter

from project import health
from project.missing import missing
from project.views import Metrics, PasswordChange, RefreshView, Root, TokenView
from reports.views import ReportViewSet
from users.views import UserViewSet

handler400 = "project.missing.bad_request"
handler403 = "project.missing.forbidden"
handler404 = "project.missing.not_found"
handler500 = "project.missing.server_error"

admin.site.site_header = admin.site.site_title = _("Usuarios y reportes")
admin.site.index_title = _("Administración")
# Lists need the width, and the start page links to everything.
admin.site.enable_nav_sidebar = False


docs = SpectacularSwaggerSplitView.as_view(
    url_name="schema", template_name="project/docs.html"
)

router = DefaultRouter()
router.APIRootView = Root
# `?format=` and `Accept` choose a representation, and nothing else does.
router.include_format_suffixes = False
router.register("users", UserViewSet)
router.register("reports", ReportViewSet)

urlpatterns = [
    path("", include(router.urls)),
    path("", include("messaging.urls")),
    path("token/", TokenView.as_view(), name="token"),
    path("token/refresh/", RefreshView.as_view(), name="token-refresh"),
    # Before that of the admin, which counts no wrong passwords.
    path(
        "admin/password_change/",
        admin.site.admin_view(PasswordChange.as_view(), cacheable=True),
    ),
    path("admin/", admin.site.urls),
    path("health/live", csrf_exempt(health.live)),
    path("health/ready", csrf_exempt(health.ready)),
    path("metrics", Metrics.as_view()),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", docs, name="docs"),
    # With open access there is no login.
    *(
        []
        if settings.OPEN_ACCESS
        else [path("session/", include("rest_framework.urls"))]
    ),
    re_path(r"(?P<path>[\s\S]*)", missing),
]

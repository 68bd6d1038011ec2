"""All URLs of the project."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.routers import APIRootView, DefaultRouter
from rest_framework_simplejwt.views import TokenViewBase

from messaging.monitoring.metrics import metrics
from project import health
from project.access import TokenSerializer
from project.missing import missing
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


class Root(APIRootView):
    """Las lecturas van a la base de datos; las escrituras se encolan."""

    name = "Usuarios y reportes"


class Token(TokenViewBase):
    """Un token a cambio del nombre de usuario y la contraseña de una cuenta."""

    name = "Token de acceso"
    serializer_class = TokenSerializer


docs = SpectacularSwaggerSplitView.as_view(
    url_name="schema", template_name="project/docs.html"
)

router = DefaultRouter()
router.APIRootView = Root
router.register("users", UserViewSet)
router.register("reports", ReportViewSet)

urlpatterns = [
    path("", include(router.urls)),
    path("", include("messaging.urls")),
    path("token/", Token.as_view()),
    path("admin/", admin.site.urls),
    path("health/live", csrf_exempt(health.live)),
    path("health/ready", csrf_exempt(health.ready)),
    path("metrics", csrf_exempt(metrics)),
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

"""What an ASGI server runs: ``uvicorn shopsite.asgi:application``.

It serves the static files too, which is right for an example; in production a web server or
WhiteNoise does that.
"""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shopsite.settings")
application = ASGIStaticFilesHandler(get_asgi_application())

"""djactor in Django's admin: its models' pages, and pages that show everything at once.

``model_admins``  the lists and rows of the models, and what may be done with them
``pages``         live, mailboxes, timers and the diagram of a trace, as part of ``ActorTypeAdmin``
``live``          the figures that those pages show, as plain data
``diagram``       where the lines of the diagram are
``display``       how spans of time, names and JSON are written

Django's admin imports this package by its name and so registers the models.  Without
``django.contrib.admin`` in INSTALLED_APPS nothing is registered, and ``live`` and ``display`` can
be imported all the same: the commands and the template filters use them.  A project that changes
what the admin shows derives from the classes that stand here, such as ``djactor.admin.ActorAdmin``.
"""

from django.apps import apps

if apps.is_installed("django.contrib.admin"):
    from django.contrib import admin

    from djactor import models
    from djactor.admin.model_admins import (
        ActorAdmin,
        ActorTypeAdmin,
        DeadLetterAdmin,
        JournalAdmin,
        MessageAdmin,
        ReplyAdmin,
    )

    admin.site.register(models.Actor, ActorAdmin)
    admin.site.register(models.ActorType, ActorTypeAdmin)
    admin.site.register(models.DeadLetter, DeadLetterAdmin)
    admin.site.register(models.Journal, JournalAdmin)
    admin.site.register(models.Message, MessageAdmin)
    admin.site.register(models.Reply, ReplyAdmin)

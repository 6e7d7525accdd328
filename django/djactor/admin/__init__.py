"""djactor in Django's admin: its models' pages, and pages that show everything at once.

``model_admins``  the lists and rows of the models, and what may be done with them
``pages``         live, mailboxes, timers and the diagram of a trace, as part of ``ActorTypeAdmin``
``live``          the figures that those pages show, as plain data
``diagram``       where the lines of the diagram are
``display``       how spans of time, names and JSON are written

Django's admin imports this package by its name and so registers the models.  Without
``django.contrib.admin`` in INSTALLED_APPS nothing is registered, and ``live`` and ``display`` can
be imported all the same: the commands and the template filters use them.
"""

from django.apps import apps

if apps.is_installed("django.contrib.admin"):
    from django.contrib import admin

    from djactor import models
    from djactor.admin import model_admins

    admin.site.register(models.Actor, model_admins.ActorAdmin)
    admin.site.register(models.ActorType, model_admins.ActorTypeAdmin)
    admin.site.register(models.DeadLetter, model_admins.DeadLetterAdmin)
    admin.site.register(models.Journal, model_admins.JournalAdmin)
    admin.site.register(models.Message, model_admins.MessageAdmin)
    admin.site.register(models.Reply, model_admins.ReplyAdmin)
